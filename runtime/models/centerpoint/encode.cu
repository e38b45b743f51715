// Pillars from their points to the bird's-eye-view image in one kernel: decorate, one or two linear layers, maxima, scatter.
// See runtime/models/centerpoint/encoder.py, whose NumPy has the same sums in the same order. A warp a pillar, and in the
// layers a lane a channel; a lane keeps the weights of its channels while the warp takes one pillar after the other.
//
// weights  (F + 1, HIDDEN or CHANNELS) float32, and where there are two layers (2 * HIDDEN + 1, CHANNELS): a row an input,
//          the last one biases
// canvas   (1, CHANNELS, ny, nx) CANVAS_T, see scatter.cu
//
// A pillar that is not full has one empty slot, whose features are zero: all others are like it.

#define ENCODE_BLOCK (ENCODE_WARPS * WARP)
#define PER_LANE ((CHANNELS + WARP - 1) / WARP)

__device__ inline float rounded(float value) { return HALF ? read_half(round_to_half(value)) : value; }
// Products of FP16 numbers are exact in FP32, so that both forms give the same.
__device__ inline float add_product(float sum, float value, float weight) {
    return HALF ? fmaf(value, weight, sum) : __fadd_rn(sum, __fmul_rn(value, weight));
}
// Like NumPy's maximum: not a number if either is none.
__device__ inline float larger(float a, float b) { return a >= b || isnan(a) ? a : b; }
__device__ inline float activation(float sum) { return larger(sum, 0.0f); }

// What a warp has of the pillar that it is at.
struct Pillar {
    float points[MAX_POINTS][POINT_FEATURES], mean[3], center[3];
    float features[MAX_POINTS][NUM_FEATURES];
    float hidden[HIDDEN > 0 ? MAX_POINTS : 1][HIDDEN > 0 ? HIDDEN : 1], maxima[HIDDEN > 0 ? HIDDEN : 1];
};

// A lane's columns of a matrix (INPUTS, OUTPUTS).
template <int INPUTS, int OUTPUTS>
struct Columns {
    static constexpr int OWN = (OUTPUTS + WARP - 1) / WARP;
    float weight[OWN][INPUTS];

    __device__ inline void load(const float* matrix) {
#pragma unroll
        for (int own = 0; own < OWN; own++)
#pragma unroll
            for (int input = 0; input < INPUTS; input++) {
                const int output = own * WARP + threadIdx.x % WARP;
                weight[own][input] = output < OUTPUTS ? matrix[input * OUTPUTS + output] : 0.0f;
            }
    }
    __device__ inline float add(int own, float sum, const float* values) const {
#pragma unroll
        for (int input = 0; input < INPUTS; input++) sum = add_product(sum, values[input], weight[own][input]);
        return sum;
    }
};

extern "C" __global__ void __launch_bounds__(ENCODE_BLOCK, ENCODE_BLOCKS)
encode_pillars(const int* frame, const u32* slots, const int* in_voxel, const int* cell_of_voxel, const float* weights,
               CANVAS_T* canvas, int* header) {
    __shared__ Pillar pillars[ENCODE_WARPS];
    Pillar& own = pillars[threadIdx.x / WARP];
    const int lane = threadIdx.x % WARP;
    const float* points = (const float*)(frame + FRAME_HEADER);
    const int voxels = min(header[VOXELS_FOUND], MAX_VOXELS);

    constexpr int FIRST = HIDDEN > 0 ? HIDDEN : CHANNELS;
    Columns<NUM_FEATURES, FIRST> first;
    Columns<1, FIRST> first_bias;
    first.load(weights);
    first_bias.load(weights + NUM_FEATURES * FIRST);
#if HIDDEN > 0
    const float* rest = weights + (NUM_FEATURES + 1) * FIRST;
    Columns<HIDDEN, CHANNELS> of_point, of_maxima;
    Columns<1, CHANNELS> bias;
    of_point.load(rest);
    of_maxima.load(rest + HIDDEN * CHANNELS);
    bias.load(rest + 2 * HIDDEN * CHANNELS);
#endif

    int over_limit = 0;
    for (int voxel = blockIdx.x * ENCODE_WARPS + threadIdx.x / WARP; voxel < voxels; voxel += gridDim.x * ENCODE_WARPS) {
        const int found = in_voxel[voxel], cell = cell_of_voxel[voxel];
        const int count = min(found, MAX_POINTS), used = min(count + 1, MAX_POINTS);
        const u32* numbers = slots + (long long)voxel * MAX_POINTS;
        for (int index = lane; index < count * POINT_FEATURES; index += WARP) {
            const int slot = index / POINT_FEATURES, feature = index % POINT_FEATURES;
            own.points[slot][feature] = points[(long long)numbers[slot] * POINT_FEATURES + feature];
        }
        __syncwarp();
        if (lane < 3) {
            double sum = 0.0;
            for (int slot = 0; slot < count; slot++) sum += (double)own.points[slot][lane];
            own.mean[lane] = (float)(sum / (double)count);
            own.center[lane] = center_along(cell, lane);
        }
        __syncwarp();
        for (int index = lane; index < used * NUM_FEATURES; index += WARP) {
            const int slot = index / NUM_FEATURES, feature = index % NUM_FEATURES;
            own.features[slot][feature] =
                slot < count ? rounded(decorated(own.points[slot], own.mean, own.center, feature)) : 0.0f;
        }
        __syncwarp();
#if HIDDEN > 0
#pragma unroll
        for (int part = 0; part < first.OWN; part++) {
            const int channel = part * WARP + lane;
            if (channel >= HIDDEN) continue;
            float best = 0.0f;
            for (int slot = 0; slot < used; slot++) {
                const float value = rounded(activation(first.add(part, first_bias.weight[part][0], own.features[slot])));
                own.hidden[slot][channel] = value;
                best = larger(best, value);
            }
            own.maxima[channel] = best;
        }
        __syncwarp();
#endif
#pragma unroll
        for (int part = 0; part < PER_LANE; part++) {
            const int channel = part * WARP + lane;
            if (channel >= CHANNELS) continue;
            float best = 0.0f;
#if HIDDEN > 0
            const float base = of_maxima.add(part, bias.weight[part][0], own.maxima);
            for (int slot = 0; slot < used; slot++)
                best = larger(best, activation(of_point.add(part, base, own.hidden[slot])));
#else
            for (int slot = 0; slot < used; slot++)
                best = larger(best, activation(first.add(part, first_bias.weight[part][0], own.features[slot])));
#endif
            write_value(canvas, place_of(cell, channel), rounded(best));
        }
        if (lane == 0) over_limit += found - count;
        __syncwarp();
    }
    if (over_limit > 0) atomicAdd(&header[POINTS_OVER_LIMIT], over_limit);
}
