"""The values that a user can choose among, by name; here because importing what does the work takes seconds."""

from typing import Literal

Device = Literal["auto", "cpu", "cuda"]
"""Where to compute; auto is CUDA where there is a usable device."""
Dtype = Literal["auto", "float32", "bfloat16"]
"""Precision of the video network and the VAE; auto is bfloat16 where the machine has instructions for it."""
MemoryPlan = Literal["fast", "balanced", "low"]
"""Which networks stay in the GPU's memory, from most of it to least; see `pipelines.memory`."""
MemoryPlanChoice = Literal["auto", "fast", "balanced", "low"]
"""A plan, or the first that fits."""
AttentionKernel = Literal["flash3", "cudnn", "native", "flash2", "efficient", "math"]
"""Attention kernels, fastest first; `native` leaves the choice to PyTorch, which is among those after it."""
AttentionChoice = Literal["auto", "flash3", "cudnn", "native", "flash2", "efficient", "math"]
"""A kernel, or the fastest there is."""
CacheKind = Literal["first-block", "taylor"]
"""Step caches, see `pipelines.options.Acceleration`."""
CacheChoice = Literal["none", "first-block", "taylor"]
"""A step cache, or none where a preset or a record has one."""
FaceBackend = Literal["builtin", "insightface", "deca"]
"""What reads a photo: the keys of `face.registry.READERS`."""
OutputFormat = Literal["mp4", "webm", "gif", "png"]
"""Forms a video can be written in; png is a folder of pictures."""
SourceFormat = Literal["folder", "consisid", "celebvhq", "openvid", "opens2v"]
"""Layouts of folders of videos: plain, or as these sets were published; see `data.sources`."""
