"""Every tolerance of the test suite, each with its reason. A test that needs another one adds it here."""

from __future__ import annotations

import torch

COLOR_REFERENCE = 2e-6
"""to_rgb against float64: a dozen float32 operations on values up to about 2, each off by at most 2^-24 relative."""

SWSCALE_CODES = 1.5
"""swscale converts through integer tables that truncate; the sums of three of them are up to this far below."""

CONSTANT_CORRECTION_CODES = 1.25
"""A constant correction comes back through Y'CbCr within this many codes per channel: three rounded samples, each
off by half a code, times the row sums of the matrix (at most 1 + 1.8814 for BT.2020 blue, whose chroma is then
rescaled by 224/219)."""

MEMORY_MIB = 6.0
"""Peak memory of 300 frames over that of 30: allocators differ by a few hundred KiB from run to run; keeping the 270
frames themselves would take 11 MiB at the least."""

NOISE_LEVEL = 0.12
"""Of a blind noise level, relative: a tenth more or less costs about 0.05 dB, the noise map being a guide only."""

TEXTURE_LEVEL = 4.0
"""What fine, still texture may be taken for, in 8-bit units: a denoiser told so little leaves it as it is."""

TRAIL = 1.1
"""Squared error where a moving object has just been, against a first frame's: 0.4 dB, which nobody sees. A fusion that
trusts the past so little that there is none costs 0.3 to 0.8 dB on noisy video."""

FLASH_DB, FADE_DB = 0.5, 0.3
"""What a flash costs the frames beside it, and a cross-fade its own, against frames that are denoised alone."""

OUTLINE = 1.3
"""Squared error on an object's outline against a first frame's: a pixel to the left or right there costs most of it,
and motion is known to a quarter of one."""

DRIFT_DB = 0.1
"""Between two passes over a scene, mean over two draws of noise: with one draw the difference is anything from -0.2
to +0.2 dB."""

OTHER_BLOCKS = 2.0
"""8-bit units, root mean square over a picture under noise of 25: the same frame where its block begins and ends at
other frames, so that it has seen between a third and all of its lookahead; documented in docs/STREAMS.md."""

BATCHED_STREAMS = 2e-5
"""A stream in a batch against the same alone, float32 in [0, 1]: a convolution of N pictures may add its products in
another order (2^-24 relative each), and a recurrence of ten frames makes 2e-6 of that."""

BATCHED_STREAMS_CUDA = 2e-3
"""The same on a GPU, where cuDNN chooses another algorithm for another N, TF32 among them."""

KERNEL_RGB = 1e-6
"""A kernel's RGB and color.to_rgb's: the same float32 operations, in another order where chroma is interpolated."""

KERNEL_BANDS = 2e-6
"""Likewise of the Haar transform, on values of up to 5."""

KERNEL_WARP = 1e-4
"""A kernel samples at x + flow; grid_sample at a coordinate scaled to [-1, 1] and back, off by 6e-8 of the width."""

KERNEL_TIES = 5e-3
"""Share of samples that a kernel may round the other way: those whose correction is half a code, but for
1e-5. Chroma is weighed by quarters, so there are some."""

FLOW_MEDIAN = 0.15
"""Pixels at 1/2 resolution: half of a flow's errors are below it, under noise as strong as a third of the detail."""

GRAPH_REPLAY = 1e-6
"""A replayed graph does the operations of the eager backend again; only where sums are split may differ."""

GRAPH_CUDA = {torch.float32: 2e-3, torch.float16: 1e-2}
"""A graph with other algorithms and fused kernels against eager, over six frames: float32 convolutions may run in TF32
(10 bits), halves have 10 bits anyway, and the fusion keeps a small difference for some frames."""

KERNEL_STEP = 1e-3
"""A step of the network with fused operations: the warp's differences, magnified where a decision is a close one."""

BACKEND_FP32 = 1e-4
"""Of other backends in float32, root mean square over a frame in [0, 1] units: sums in another order, a few frames."""

BACKEND_BF16 = 2e-3
"""The same in bfloat16: equally good roundings of the same convolutions differ by about a third of an 8-bit step."""

BACKEND_INT8 = 3e-3
"""The same in int8: equal but for values that lie on the border between two steps, until a close decision of the
motion search falls the other way."""

BACKEND_INT8_IN_BF16 = 5e-3
"""The same where the CPU has bfloat16, and what is not in int8 is rounded to that."""

TILE_MEAN = 0.02
"""8-bit units: tiles against the whole picture over a few frames of real content, on the average of all pixels. What
differs are convolutions' views beyond the edges of tiles, and then single pixels whose motion was a close decision."""

TILE_SEAM = 0.1
"""The same of the worst line or column where tiles meet: a tenth of a step of 8 bits, that is, nothing to be seen."""

REMAP = 5e-4
"""OpenCV's bicubic warp against PyTorch's, on white noise from 0 to 1, per Haar band: weights in float32 in another
order are off by up to 1e-4 a pixel, and a band sums four of them, halved."""

WINOGRAD = 1e-4
"""Results of a convolution by minimal filtering, on white noise: its transforms multiply rounding errors by about ten,
so that sums of a few units in float32 are off by up to 4e-5 for 64 channels."""

RENDERED = 0.5
"""Of a moving photo, in 8-bit steps, mean: OpenCV places its samples to a thirty-second of a pixel and rounds
weights."""

RECODED_DB = 34.0
"""PSNR of training data that was coded once more to be carried: noise that is added in training is well above that."""
