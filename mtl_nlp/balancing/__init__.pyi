from .pull import adapter_deviation as adapter_deviation
