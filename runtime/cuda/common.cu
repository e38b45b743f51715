// Shared by all kernels. The files of a model are compiled as one, behind this, with -fmad=false:
// products and sums are rounded one by one, as NumPy rounds them.
//
// Sizes and constants of the model are macros, set by device_kernels.py:
//   POINT_FEATURES C, MAX_POINTS M (points a voxel keeps), MAX_VOXELS, NUM_FEATURES F (of a decorated point),
//   GRID_NX GRID_NY GRID_NZ, GRID_MIN_[XYZ] and VOXEL_[XYZ] [m], CENTER_[XYZ] (offset of a voxel's center, see decorate),
//   CHANNELS (of a pillar), MAX_NUM (boxes a task), POST_MAX (boxes a task keeps), ...

typedef unsigned int u32;
typedef unsigned long long u64;

#define WARP 32
#define ALL_LANES 0xffffffffu
#define UNUSED 0xffffffffu

// What becomes of a frame: the first words of the result, (HEADER_WORDS,) int32. Task t has kept header[KEPT + t] boxes.
#define POINTS_NAN 0
#define POINTS_OUT_OF_RANGE 1
#define VOXELS_FOUND 2
#define POINTS_IN_DROPPED 3
#define POINTS_OVER_LIMIT 4
#define HEATMAP_NAN 5
#define KEPT 16

// Tensors are float32 or float16, whichever the engine has.
__device__ inline float read_half(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

__device__ inline unsigned short round_to_half(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

__device__ inline float read_value(const float* values, long long index) { return values[index]; }
__device__ inline float read_value(const unsigned short* values, long long index) { return read_half(values[index]); }
__device__ inline void write_value(float* values, long long index, float value) { values[index] = value; }
__device__ inline void write_value(unsigned short* values, long long index, float value) {
    values[index] = round_to_half(value);
}

__device__ inline int warp_sum(int value) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) value += __shfl_down_sync(ALL_LANES, value, offset);
    return value;
}

// Adds a count of every thread to one counter, with one atomic operation a warp. All lanes must call it.
__device__ inline void add_to_counter(int* counter, int value) {
    value = warp_sum(value);
    if (threadIdx.x % WARP == 0 && value != 0) atomicAdd(counter, value);
}

// Sum of the values of all threads of lower number; *total is the sum of all. BLOCK: threads of the block, at most 1024.
// All threads must call it.
template <int BLOCK>
__device__ inline int block_exclusive_sum(int value, int* total) {
    __shared__ int sums[WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int inclusive = value;
    for (int offset = 1; offset < WARP; offset *= 2) {
        const int other = __shfl_up_sync(ALL_LANES, inclusive, offset);
        if (lane >= offset) inclusive += other;
    }
    if (lane == WARP - 1) sums[warp] = inclusive;
    __syncthreads();
    if (warp == 0) {
        int sum = lane < BLOCK / WARP ? sums[lane] : 0;
        for (int offset = 1; offset < WARP; offset *= 2) {
            const int other = __shfl_up_sync(ALL_LANES, sum, offset);
            if (lane >= offset) sum += other;
        }
        sums[lane] = sum;
    }
    __syncthreads();
    const int before = warp > 0 ? sums[warp - 1] : 0;
    *total = sums[BLOCK / WARP - 1];
    __syncthreads();
    return before + inclusive - value;
}
