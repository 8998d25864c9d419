from .gradient_methods import build_gradient_method as build_gradient_method
from .gradients import GradientMethod as GradientMethod
from .pull import AdapterPull as AdapterPull
from .pull import adapter_deviation as adapter_deviation
from .static import Static as Static
from .weighting import LossWeighting as LossWeighting
from .weighting import WeightingStep as WeightingStep
