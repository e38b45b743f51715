// Decoding of a center head, see runtime/models/centerpoint/decode.py: the MAX_NUM best cells of a task above the threshold, as boxes.
//
// heatmap  (1, classes, H, W) OUTPUT_T logits
// keys     (classes * H * W,) uint64: the bits of the score, then the cell's number inverted, so that a larger key is a
//          better cell and no two are equal
// boxes    (MAX_NUM, BOX_WORDS) 32-bit words: x y z l w h yaw vx vy score (float32), label (int32), unused
// state    (STATE_WORDS + BINS,) uint32, zero at the start: number of keys, number of boxes; then a histogram of the scores
//
// The threshold comes as a logit, the smallest whose score NumPy finds above it. Scores, sizes and yaws are computed in
// double and rounded once, as NumPy does: host and device choose the same cells, in the same order.

#define BINS 4096
#define BIN_SHIFT 18  // scores are at most 1, whose bits are 0x3f800000
#define NUM_KEYS 0
#define NUM_BOXES 1
#define STATE_WORDS 16
#define HISTOGRAM_BLOCK 512
#define DECODE_BLOCK 1024
#define BOX_WORDS 12

__device__ inline float exponential(float value) { return (float)exp((double)value); }
__device__ inline float sigmoid(float value) { return (float)(1.0 / (1.0 + exp(-(double)value))); }

// Numbers that are not negative are ordered as their bits are.
__device__ inline u32 score_bits(float logit) { return __float_as_uint(sigmoid(logit)); }

extern "C" __global__ void __launch_bounds__(HISTOGRAM_BLOCK)
decode_histogram(const OUTPUT_T* heatmap, int cells, float threshold, u32* state, int* header) {
    __shared__ u32 histogram[BINS];
    for (int bin = threadIdx.x; bin < BINS; bin += HISTOGRAM_BLOCK) histogram[bin] = 0;
    __syncthreads();
    int nan = 0;
    for (int cell = blockIdx.x * HISTOGRAM_BLOCK + threadIdx.x; cell < cells; cell += gridDim.x * HISTOGRAM_BLOCK) {
        const float logit = read_value(heatmap, cell);
        nan += isnan(logit);
        if (logit >= threshold) atomicAdd(&histogram[score_bits(logit) >> BIN_SHIFT], 1);
    }
    add_to_counter(&header[HEATMAP_NAN], nan);
    __syncthreads();
    for (int bin = threadIdx.x; bin < BINS; bin += HISTOGRAM_BLOCK)
        if (histogram[bin] != 0) atomicAdd(&state[STATE_WORDS + bin], histogram[bin]);
}

// The bin that the MAX_NUM-th best cell falls into; 0 when there are fewer. A thread takes BINS / HISTOGRAM_BLOCK
// bins, the first thread the highest.
__device__ inline u32 lowest_bin(const u32* histogram) {
    __shared__ u32 found;
    if (threadIdx.x == 0) found = 0;
    const int bins = BINS / HISTOGRAM_BLOCK, top = BINS - 1 - (int)threadIdx.x * bins;
    int own = 0, total;
    for (int bin = 0; bin < bins; bin++) own += histogram[top - bin];
    int above = block_exclusive_sum<HISTOGRAM_BLOCK>(own, &total);
    for (int bin = 0; bin < bins; bin++) {
        const int with = above + (int)histogram[top - bin];
        if (above < MAX_NUM && with >= MAX_NUM) found = top - bin;
        above = with;
    }
    __syncthreads();
    return found;
}

extern "C" __global__ void __launch_bounds__(HISTOGRAM_BLOCK)
decode_collect(const OUTPUT_T* heatmap, int cells, float threshold, u32* state, u64* keys) {
    const u32 lowest = lowest_bin(state + STATE_WORDS);
    for (int cell = blockIdx.x * HISTOGRAM_BLOCK + threadIdx.x; cell < cells; cell += gridDim.x * HISTOGRAM_BLOCK) {
        const float logit = read_value(heatmap, cell);
        if (!(logit >= threshold)) continue;
        const u32 score = score_bits(logit);
        if (score >> BIN_SHIFT < lowest) continue;
        keys[atomicAdd(&state[NUM_KEYS], 1u)] = ((u64)score << 32) | (u32)~cell;
    }
}

// The smallest of the MAX_NUM largest of `count` > MAX_NUM distinct keys, digit by digit. For one block.
__device__ inline u64 smallest_chosen(const u64* keys, int count) {
    __shared__ int digits[256];
    __shared__ u64 prefix;
    __shared__ int wanted;
    if (threadIdx.x == 0) {
        prefix = 0;
        wanted = MAX_NUM;
    }
    for (int shift = 56; shift >= 0; shift -= 8) {
        if (threadIdx.x < 256) digits[threadIdx.x] = 0;
        __syncthreads();
        const u64 known = shift == 56 ? 0 : ~0ull << (shift + 8);
        for (int index = threadIdx.x; index < count; index += DECODE_BLOCK)
            if ((keys[index] & known) == prefix) atomicAdd(&digits[keys[index] >> shift & 255], 1);
        __syncthreads();
        if (threadIdx.x < WARP) {
            // Eight digits a lane, lane 0 the largest.
            const int top = 255 - (int)threadIdx.x * 8;
            int own = 0;
            for (int digit = 0; digit < 8; digit++) own += digits[top - digit];
            int above = own;
            for (int offset = 1; offset < WARP; offset *= 2) {
                const int other = __shfl_up_sync(ALL_LANES, above, offset);
                if ((int)threadIdx.x >= offset) above += other;
            }
            above -= own;
            const int target = wanted;
            __syncwarp();
            for (int digit = 0; digit < 8; digit++) {
                const int with = above + digits[top - digit];
                if (above < target && with >= target) {
                    prefix |= (u64)(top - digit) << shift;
                    wanted = target - above;
                }
                above = with;
            }
        }
        __syncthreads();
    }
    return prefix;
}

// Sorts SORTED keys in shared memory, largest first (bitonic). For one block.
__device__ inline void sort_descending(u64* keys) {
    for (int size = 2; size <= SORTED; size *= 2)
        for (int stride = size / 2; stride > 0; stride /= 2) {
            __syncthreads();
            for (int index = threadIdx.x; index < SORTED; index += DECODE_BLOCK) {
                const int partner = index ^ stride;
                if (partner <= index) continue;
                const bool descending = (index & size) == 0;
                const u64 low = keys[index], high = keys[partner];
                if ((low < high) == descending) {
                    keys[index] = high;
                    keys[partner] = low;
                }
            }
        }
    __syncthreads();
}

__device__ inline float meters(int cell, float offset, int factor, float voxel_size, float minimum) {
    const float position = __fmul_rn(__fadd_rn((float)cell, offset), (float)factor);
    return __fadd_rn(__fmul_rn(position, voxel_size), minimum);
}

extern "C" __global__ void __launch_bounds__(DECODE_BLOCK)
decode_boxes(const OUTPUT_T* heatmap, const OUTPUT_T* reg, const OUTPUT_T* height, const OUTPUT_T* dim,
             const OUTPUT_T* rot, const OUTPUT_T* vel, int map_height, int map_width, int factor, int first_label,
             const u64* keys, u32* state, int* boxes) {
    __shared__ u64 chosen[SORTED];
    __shared__ int num_chosen;
    const int count = (int)state[NUM_KEYS], plane = map_height * map_width;
    for (int index = threadIdx.x; index < SORTED; index += DECODE_BLOCK) chosen[index] = 0;
    if (threadIdx.x == 0) num_chosen = 0;
    const u64 smallest = count > MAX_NUM ? smallest_chosen(keys, count) : 0;
    __syncthreads();
    for (int index = threadIdx.x; index < count; index += DECODE_BLOCK)
        if (keys[index] >= smallest) chosen[atomicAdd(&num_chosen, 1)] = keys[index];
    __syncthreads();
    const int candidates = num_chosen;
    sort_descending(chosen);

    // MAX_NUM is at most DECODE_BLOCK: a thread a box.
    int box[BOX_WORDS];
    bool in_range = false;
    if ((int)threadIdx.x < candidates) {
        const int index = (int)~(u32)chosen[threadIdx.x];
        const int label = index / plane, cell = index % plane;
        const int row = cell / map_width, column = cell % map_width;
        float values[10];
        values[0] = meters(column, read_value(reg, cell), factor, VOXEL_X, GRID_MIN_X);
        values[1] = meters(row, read_value(reg, plane + cell), factor, VOXEL_Y, GRID_MIN_Y);
        values[2] = read_value(height, cell);
        // An export with rot_y_axis_reference has w, l, h for l, w, h, and -cos, -sin for sin, cos.
        const int length = Y_AXIS_REFERENCE ? plane : 0, width = Y_AXIS_REFERENCE ? 0 : plane;
        values[3] = read_value(dim, length + cell);
        values[4] = read_value(dim, width + cell);
        values[5] = read_value(dim, 2 * plane + cell);
        if (NORM_BBOX)
            for (int axis = 3; axis < 6; axis++) values[axis] = exponential(values[axis]);
        const float first = read_value(rot, cell), second = read_value(rot, plane + cell);
        const float sine = Y_AXIS_REFERENCE ? -second : first, cosine = Y_AXIS_REFERENCE ? -first : second;
        values[6] = (float)atan2((double)sine, (double)cosine);
        values[7] = vel ? read_value(vel, cell) : __int_as_float(0x7fc00000);
        values[8] = vel ? read_value(vel, plane + cell) : __int_as_float(0x7fc00000);
        values[9] = __uint_as_float((u32)(chosen[threadIdx.x] >> 32));
        for (int word = 0; word < 10; word++) box[word] = __float_as_int(values[word]);
        box[10] = first_label + label;
        box[11] = 0;
        in_range = values[0] >= RANGE_X0 && values[0] <= RANGE_X1 && values[1] >= RANGE_Y0 && values[1] <= RANGE_Y1 &&
                   values[2] >= RANGE_Z0 && values[2] <= RANGE_Z1;
    }
    int total;
    const int place = block_exclusive_sum<DECODE_BLOCK>(in_range, &total);
    if (in_range)
        for (int word = 0; word < BOX_WORDS; word++) boxes[place * BOX_WORDS + word] = box[word];
    if (threadIdx.x == 0) state[NUM_BOXES] = total;
}
