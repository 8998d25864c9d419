from .result import SearchResult as SearchResult
from .finding import search as search
