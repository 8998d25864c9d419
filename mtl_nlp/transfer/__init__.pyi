from .comparing import compare as compare
from .comparison import Comparison as Comparison
from .delta_m import DeltaM as DeltaM
from .delta_m import delta_m as delta_m
from .inspection import inspect_model as inspect_model
from .statistics import Difference as Difference
from .statistics import compare_sides as compare_sides
