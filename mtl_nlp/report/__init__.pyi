from .page import write_report as write_report
from .tables import comparison_table as comparison_table
