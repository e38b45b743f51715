// Pillar decoration, see runtime/models/centerpoint/decorate.py: the encoder's input, row by row, padding included. LANES_A_VOXEL threads a
// voxel, since most have a handful of points; threads of a voxel take its values in turn, so that they write side by side.
//
// features  (rows, M, F) FEATURE_T; rows behind the last voxel and unused slots are zero
// filled    (rows,) int32 slots of each row that are not zero; only these and the new ones are written, a tenth of it all
//
// A voxel's mean is summed in double in the order of its points, as NumPy does: the result is the same to the bit.

#define DECORATE_BLOCK 128
#define LANES_A_VOXEL 8
#define VOXELS_A_BLOCK (DECORATE_BLOCK / LANES_A_VOXEL)

__device__ inline float coordinate(const float* point, const float* center, int axis) {
    return LEGACY && axis < CENTER_AXES ? __fsub_rn(point[axis], center[axis]) : point[axis];
}

__device__ inline float decorated(const float* point, const float* mean, const float* center, int feature) {
    if (feature < 3) return coordinate(point, center, feature);
    if (feature < POINT_FEATURES) return point[feature];
    feature -= POINT_FEATURES;
    if (CLUSTER_CENTER) {
        if (feature < 3) return __fsub_rn(point[feature], mean[feature]);
        feature -= 3;
    }
    if (feature < CENTER_AXES) return __fsub_rn(point[feature], center[feature]);
    const float x = coordinate(point, center, 0), y = coordinate(point, center, 1), z = coordinate(point, center, 2);
    return __fsqrt_rn(__fadd_rn(__fadd_rn(__fmul_rn(x, x), __fmul_rn(y, y)), __fmul_rn(z, z)));
}

__device__ inline float center_of(int cell, float size, float offset) {
    return __fadd_rn(__fmul_rn((float)cell, size), offset);
}

// The center of a cell's pillar along x (0), y (1) or z (2) [m].
__device__ inline float center_along(int cell, int axis) {
    if (axis == 0) return center_of(cell % GRID_NX, VOXEL_X, CENTER_X);
    if (axis == 1) return center_of(cell / GRID_NX % GRID_NY, VOXEL_Y, CENTER_Y);
    return center_of(cell / (GRID_NX * GRID_NY), VOXEL_Z, CENTER_Z);
}

extern "C" __global__ void __launch_bounds__(DECORATE_BLOCK)
decorate(const int* frame, const u32* slots, const int* in_voxel, const int* cell_of_voxel, FEATURE_T* features,
         int* filled, int* header, int rows) {
    __shared__ float means[VOXELS_A_BLOCK][3], centers[VOXELS_A_BLOCK][3];
    const int lane = threadIdx.x % LANES_A_VOXEL, own = threadIdx.x / LANES_A_VOXEL;
    const int voxel = blockIdx.x * VOXELS_A_BLOCK + own;
    const int before = voxel < rows ? filled[voxel] : 0;
    const int found = voxel < min(min(header[VOXELS_FOUND], MAX_VOXELS), rows) ? in_voxel[voxel] : 0;
    const int count = min(found, MAX_POINTS);
    const float* points = (const float*)(frame + FRAME_HEADER);
    const u32* numbers = slots + (long long)voxel * MAX_POINTS;

    // One thread an axis. The others wait with them, before the shared memory is read.
    if (lane < 3 && count > 0) {
        double sum = 0.0;
        for (int slot = 0; slot < count; slot++) sum += (double)points[(long long)numbers[slot] * POINT_FEATURES + lane];
        means[own][lane] = (float)(sum / (double)count);
        centers[own][lane] = center_along(cell_of_voxel[voxel], lane);
    }
    __syncwarp();

    const int written = max(count, before) * NUM_FEATURES;
    FEATURE_T* row = features + (long long)voxel * (MAX_POINTS * NUM_FEATURES);
    for (int index = lane; index < written; index += LANES_A_VOXEL) {
        const int slot = index / NUM_FEATURES;
        float value = 0.0f;
        if (slot < count) {
            const float* point = points + (long long)numbers[slot] * POINT_FEATURES;
            value = decorated(point, means[own], centers[own], index - slot * NUM_FEATURES);
        }
        write_value(row, index, value);
    }
    if (lane == 0 && voxel < rows) {
        filled[voxel] = count;
        if (found > count) atomicAdd(&header[POINTS_OVER_LIMIT], found - count);
    }
}
