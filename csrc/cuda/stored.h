// Stored: the type that a file is compiled for, named by FASTKAN_TYPE.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define FASTKAN_IS_f32 float
#define FASTKAN_IS_f64 double
#define FASTKAN_IS_bf16 __nv_bfloat16
#define FASTKAN_IS_f16 __half
#define FASTKAN_JOIN(a, b) a##b
#define FASTKAN_STORED(type) FASTKAN_JOIN(FASTKAN_IS_, type)

namespace fastkan {
using Stored = FASTKAN_STORED(FASTKAN_TYPE);
}
