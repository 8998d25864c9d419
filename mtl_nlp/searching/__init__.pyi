from .finding import search as search
from .result import SearchResult as SearchResult
