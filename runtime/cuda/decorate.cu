// Pillar decoration, see runtime/decorate.py: the encoder's input, row by row, padding included. A warp a voxel.
//
// features  (rows, M, F) FEATURE_T; rows behind the last voxel and unused slots are zero
// filled    (rows,) int32 slots of each row that are not zero; only these and the new ones are written, a tenth of it all
//
// A voxel's mean is summed in double in the order of its points, as NumPy does: the result is the same to the bit.

#define DECORATE_WARPS 4

__device__ inline float decorated(const float* point, const float* mean, const float* center, int feature) {
    if (feature < POINT_FEATURES)
        return LEGACY && feature < CENTER_AXES ? __fsub_rn(point[feature], center[feature]) : point[feature];
    feature -= POINT_FEATURES;
    if (CLUSTER_CENTER) {
        if (feature < 3) return __fsub_rn(point[feature], mean[feature]);
        feature -= 3;
    }
    if (feature < CENTER_AXES) return __fsub_rn(point[feature], center[feature]);
    float x[3];
    for (int axis = 0; axis < 3; axis++) x[axis] = decorated(point, mean, center, axis);
    return __fsqrt_rn(__fadd_rn(__fadd_rn(__fmul_rn(x[0], x[0]), __fmul_rn(x[1], x[1])), __fmul_rn(x[2], x[2])));
}

extern "C" __global__ void __launch_bounds__(DECORATE_WARPS* WARP)
decorate(const int* frame, const u32* slots, const int* in_voxel, const int* cell_of_voxel, FEATURE_T* features,
         int* filled, int* header, int rows) {
    __shared__ float staged[DECORATE_WARPS][MAX_POINTS * NUM_FEATURES];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int voxel = blockIdx.x * DECORATE_WARPS + warp;
    if (voxel >= rows) return;
    const float* points = (const float*)(frame + FRAME_HEADER);
    float* row = staged[warp];
    const int count = voxel < min(header[VOXELS_FOUND], MAX_VOXELS) ? min(in_voxel[voxel], MAX_POINTS) : 0;
    const int written = max(count, filled[voxel]) * NUM_FEATURES;
    for (int index = lane; index < written; index += WARP) row[index] = 0.0f;
    __syncwarp();

    if (count > 0) {
        const u32* numbers = slots + (long long)voxel * MAX_POINTS;
        double sums[3] = {0.0, 0.0, 0.0};
        for (int start = 0; start < count; start += WARP) {
            float values[3] = {0.0f, 0.0f, 0.0f};
            if (start + lane < count)
                for (int axis = 0; axis < 3; axis++)
                    values[axis] = points[(long long)numbers[start + lane] * POINT_FEATURES + axis];
            for (int other = 0; other < min(count - start, WARP); other++)
                for (int axis = 0; axis < 3; axis++) sums[axis] += (double)__shfl_sync(ALL_LANES, values[axis], other);
        }
        const int cell = cell_of_voxel[voxel];
        const int cells[3] = {cell % GRID_NX, cell / GRID_NX % GRID_NY, cell / (GRID_NX * GRID_NY)};
        const float sizes[3] = {VOXEL_X, VOXEL_Y, VOXEL_Z}, offsets[3] = {CENTER_X, CENTER_Y, CENTER_Z};
        float mean[3], center[3];
        for (int axis = 0; axis < 3; axis++) {
            mean[axis] = (float)(sums[axis] / (double)count);
            center[axis] = __fadd_rn(__fmul_rn((float)cells[axis], sizes[axis]), offsets[axis]);
        }
        for (int slot = lane; slot < count; slot += WARP) {
            float point[POINT_FEATURES];
            for (int feature = 0; feature < POINT_FEATURES; feature++)
                point[feature] = points[(long long)numbers[slot] * POINT_FEATURES + feature];
            for (int feature = 0; feature < NUM_FEATURES; feature++)
                row[slot * NUM_FEATURES + feature] = decorated(point, mean, center, feature);
        }
        if (lane == 0 && in_voxel[voxel] > MAX_POINTS)
            atomicAdd(&header[POINTS_OVER_LIMIT], in_voxel[voxel] - MAX_POINTS);
        __syncwarp();
    }
    FEATURE_T* out = features + (long long)voxel * (MAX_POINTS * NUM_FEATURES);
    for (int index = lane; index < written; index += WARP) write_value(out, index, row[index]);
    if (lane == 0) filled[voxel] = count;
}
