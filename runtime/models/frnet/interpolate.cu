// Points in the range image, and those that fill its gaps, see project.py and interpolate.py. Three kernels, since each
// needs the whole result of the one before:
//
//   project_points  the pixel of each point, and the point that each pixel shows: the nearest, or as Autoware's node has it
//                   (AS_AUTOWARE) the farthest (a minimum, which has no order)
//   count_gaps      how many gaps each tile of TILE pixels has
//   fill_gaps       the means of both sides of the gaps, behind the points, in the order of the pixels
//
// frame          (4 + N * 4) 32-bit words: N, three unused, then (N, 4) float32 points
// points         (most rows, 4) float32 in the sensor's frame: those of the frame, zeros for those without a direction,
//                then the added ones
// cell_of_row    (most rows,) int32, the frustum's pixel of each, row * FRUSTUM_W + column; -1: it has no direction
// shown          (IMAGE_H * IMAGE_W,) uint64: the least rank in a pixel (of the nearest its depth's bits, of the farthest
//                those of its squared depth inverted), then the number of its point; EMPTY at the start. Positive floats
//                are in the order of their bits
// gaps_of_tile   (tiles of the image,) int32
// header         (HEADER_WORDS,) int32; FIRST is UNUSED at the start, and stays so AS_AUTOWARE; all others are 0

#define FRAME_HEADER 4
#define FEATURES 4
#define BLOCK 256
#define ITEMS 4
#define TILE (BLOCK * ITEMS)
#define EMPTY 0xffffffffffffffffull

#define USABLE 0
#define FIRST 1
#define GAPS 2
#define FRUSTUMS 3
#define POINTS_OVER 4

struct Direction {
    float yaw, pitch;
};

// Rounded once, from double: a GPU's own functions in single precision are off by a few units in the last place.
__device__ inline Direction direction_of(const float* point, float depth) {
    return {-(float)atan2((double)point[1], (double)point[0]), (float)asin((double)__fdiv_rn(point[2], depth))};
}

__device__ inline float depth_of(const float* point) {
    return __fsqrt_rn(point[0] * point[0] + point[1] * point[1] + point[2] * point[2]);
}

// What the range image holds of a coordinate: all of it, or AS_AUTOWARE what half precision does.
__device__ inline float kept(float value) {
    return AS_AUTOWARE ? read_half(round_to_half(fminf(fmaxf(value, -MOST), MOST))) : value;
}

__device__ inline u32 rank_of(const float* point, float depth) {
    if (!AS_AUTOWARE) return __float_as_uint(depth);
    const float x = kept(point[0]), y = kept(point[1]), z = kept(point[2]);
    return ~__float_as_uint(x * x + y * y + z * z);
}

__device__ inline float mean_of(float left, float right) {
    const float sum = kept(left) + kept(right);
    return (AS_AUTOWARE ? read_half(round_to_half(sum)) : sum) * 0.5f;
}

__device__ inline int within(float value, int size) { return (int)min(max(0.0f, floorf(value)), (float)(size - 1)); }

__device__ inline int pixel_of(Direction direction, int height, int width) {
    const float across = 0.5f * (__fdiv_rn(direction.yaw, PI) + 1.0f) * (float)width;
    const float down = (1.0f - __fdiv_rn(direction.pitch + FOV_DOWN, FOV)) * (float)height;
    return within(down, height) * width + within(across, width);
}

extern "C" __global__ void __launch_bounds__(BLOCK)
project_points(const int* frame, float* points, int* cell_of_row, u64* shown, u32* header) {
    const int count = frame[0];
    const float* given = (const float*)(frame + FRAME_HEADER);
    const double position[3] = {POSITION_X, POSITION_Y, POSITION_Z};
    int usable = 0;
    for (int row = blockIdx.x * BLOCK + threadIdx.x; row < count; row += gridDim.x * BLOCK) {
        float point[FEATURES];
        bool finite = true;
        for (int feature = 0; feature < FEATURES; feature++) {
            const float value = given[(long long)row * FEATURES + feature];
            point[feature] = feature < 3 ? (float)((double)value - position[feature]) : value;
            finite = finite && isfinite(point[feature]);
        }
        const float depth = depth_of(point);
        const bool has_direction = finite && depth > 0.0f;
        if (has_direction) {
            const Direction direction = direction_of(point, depth);
            const int pixel = pixel_of(direction, IMAGE_H, IMAGE_W);
            atomicMin(&shown[pixel], (u64)rank_of(point, depth) << 32 | (u64)row);
            // It only ever gets smaller: a number above what is read there, however old that is, can't stay.
            if (!AS_AUTOWARE && *(volatile u32*)&header[FIRST] > (u32)row) atomicMin(&header[FIRST], (u32)row);
            cell_of_row[row] = pixel_of(direction, FRUSTUM_H, FRUSTUM_W);
            usable++;
        } else {
            cell_of_row[row] = -1;
        }
        for (int feature = 0; feature < FEATURES; feature++)
            points[(long long)row * FEATURES + feature] = has_direction ? point[feature] : 0.0f;
    }
    add_to_counter((int*)&header[USABLE], usable);
}

// In AWML, a pixel that shows the first of all points counts as empty.
__device__ inline bool is_filled(const u64* shown, u32 first, int pixel) {
    return shown[pixel] != EMPTY && (u32)shown[pixel] != first;
}

// Marks which of a thread's ITEMS consecutive pixels are gaps; returns how many.
__device__ inline int gaps_of(const u64* shown, u32 first, int start, bool* is_gap) {
    int gaps = 0;
    for (int item = 0; item < ITEMS; item++) {
        const int pixel = start + item, column = pixel % IMAGE_W;
        is_gap[item] = pixel < IMAGE_H * IMAGE_W && column > 0 && column < IMAGE_W - 1
                       && !is_filled(shown, first, pixel) && is_filled(shown, first, pixel - 1)
                       && is_filled(shown, first, pixel + 1);
        gaps += is_gap[item];
    }
    return gaps;
}

extern "C" __global__ void __launch_bounds__(BLOCK)
count_gaps(const u64* shown, const u32* header, int* gaps_of_tile) {
    bool is_gap[ITEMS];
    int total;
    const int gaps = gaps_of(shown, header[FIRST], blockIdx.x * TILE + threadIdx.x * ITEMS, is_gap);
    block_exclusive_sum<BLOCK>(gaps, &total);
    if (threadIdx.x == 0) gaps_of_tile[blockIdx.x] = total;
}

extern "C" __global__ void __launch_bounds__(BLOCK)
fill_gaps(const int* frame, const u64* shown, const int* gaps_of_tile, int most, float* points, int* cell_of_row,
          u32* header) {
    const u32 first = header[FIRST];
    int before = 0, gaps_before, total;
    for (int tile = threadIdx.x; tile < blockIdx.x; tile += BLOCK) before += gaps_of_tile[tile];
    block_exclusive_sum<BLOCK>(before, &gaps_before);

    bool is_gap[ITEMS];
    const int start = blockIdx.x * TILE + threadIdx.x * ITEMS;
    const int gaps = gaps_of(shown, first, start, is_gap);
    int row = frame[0] + gaps_before + block_exclusive_sum<BLOCK>(gaps, &total);
    for (int item = 0; item < ITEMS; item++) {
        if (!is_gap[item]) continue;
        if (row < most) {
            const float* left = points + (long long)(u32)shown[start + item - 1] * FEATURES;
            const float* right = points + (long long)(u32)shown[start + item + 1] * FEATURES;
            float* mean = points + (long long)row * FEATURES;
            for (int feature = 0; feature < FEATURES; feature++) mean[feature] = mean_of(left[feature], right[feature]);
            cell_of_row[row] = pixel_of(direction_of(mean, depth_of(mean)), FRUSTUM_H, FRUSTUM_W);
        }
        row++;
    }
    if (blockIdx.x == gridDim.x - 1 && threadIdx.x == 0) header[GAPS] = gaps_before + total;
}
