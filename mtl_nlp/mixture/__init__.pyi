from .mixture import TaskMixture as TaskMixture
from .sampler import MixtureBatchSampler as MixtureBatchSampler
from .streaming import MixtureStream as MixtureStream
