from .peft import export_peft as export_peft
from .stock import export_stock as export_stock
from .stock import stock_model as stock_model
