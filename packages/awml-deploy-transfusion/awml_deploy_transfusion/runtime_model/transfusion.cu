// TransFusion around its network, behind runtime/lidar/voxelize.cu: voxels as the network takes them, boxes of what it
// says. The same values as pipeline.py and decode.py give, bit for bit.
//
// voxels      (rows, MAX_POINTS, POINT_FEATURES) VOXEL_T, unused slots zero
// num_points  (rows,) int32
// coors       (rows, 4) int32: zero, and the cell along z, y, x
// scores      (1, CLASSES, QUERIES) SCORE_T
// values      (1, NUMBERS, QUERIES) BOX_T: x and y in cells, z, logarithms of l, w, h, and the velocity if NUMBERS is 8
// rotations   (1, 2, QUERIES) ROTATION_T: sine and cosine
// boxes       (QUERIES, BOX_WORDS) 32-bit words: x y z l w h yaw vx vy score (float32), label (int32), unused

#define PACK_BLOCK 128
#define DECODE_BLOCK 1024
#define BOX_WORDS 12
#define QUERIES_NAN 5

// Rows behind the last voxel are the first one again, which writes the same features to the same cell; a frame without
// any has empty ones.
extern "C" __global__ void __launch_bounds__(PACK_BLOCK)
pack(const int* frame, const u32* slots, const int* in_voxel, const int* cell_of_voxel, VOXEL_T* voxels, int* num_points,
     int* coors, int* header, int rows) {
    const float* points = (const float*)(frame + FRAME_HEADER);
    const int found = min(header[VOXELS_FOUND], MAX_VOXELS);
    for (int row = blockIdx.x; row < rows; row += gridDim.x) {
        const int voxel = row < found ? row : 0;
        const int count = found > 0 ? min(in_voxel[voxel], MAX_POINTS) : 0;
        for (int index = threadIdx.x; index < MAX_POINTS * POINT_FEATURES; index += PACK_BLOCK) {
            const int slot = index / POINT_FEATURES, feature = index % POINT_FEATURES;
            float value = 0.0f;
            if (slot < count) {
                const long long point = slots[(long long)voxel * MAX_POINTS + slot];
                value = points[point * POINT_FEATURES + feature];
            }
            write_value(voxels, (long long)row * MAX_POINTS * POINT_FEATURES + index, value);
        }
        if (threadIdx.x == 0) {
            const int cell = found > 0 ? cell_of_voxel[voxel] : 0;
            if (row < found && in_voxel[row] > count) atomicAdd(&header[POINTS_OVER_LIMIT], in_voxel[row] - count);
            num_points[row] = count;
            coors[4 * row] = 0;
            coors[4 * row + 1] = cell / (GRID_NX * GRID_NY);
            coors[4 * row + 2] = cell / GRID_NX % GRID_NY;
            coors[4 * row + 3] = cell % GRID_NX;
        }
    }
}

// Column `query` of a tensor (1, rows, QUERIES).
template <typename T>
__device__ inline float said(const T* values, int row, int query) { return read_value(values, row * QUERIES + query); }

// The class of the best score, the first of equal ones; a NaN is best of all, as in NumPy.
__device__ inline int best_class(const SCORE_T* scores, int query) {
    int best = 0;
    for (int label = 1; label < CLASSES; label++) {
        const float value = said(scores, label, query), most = said(scores, best, query);
        if (!isnan(most) && (value > most || isnan(value))) best = label;
    }
    return best;
}

// One block, a thread a query.
extern "C" __global__ void __launch_bounds__(DECODE_BLOCK)
decode_queries(const SCORE_T* scores, const BOX_T* values, const ROTATION_T* rotations, int* header, int* boxes) {
    const int query = threadIdx.x;
    bool kept = false, nan = false;
    float box[10];
    int label = 0;
    if (query < QUERIES) {
        for (int row = 0; row < CLASSES; row++) nan = nan || isnan(said(scores, row, query));
        for (int row = 0; row < NUMBERS; row++) nan = nan || isnan(said(values, row, query));
        for (int row = 0; row < 2; row++) nan = nan || isnan(said(rotations, row, query));
        label = best_class(scores, query);
        box[0] = said(values, 0, query) * FACTOR * VOXEL_X + GRID_MIN_X;
        box[1] = said(values, 1, query) * FACTOR * VOXEL_Y + GRID_MIN_Y;
        box[2] = said(values, 2, query);
        for (int side = 3; side < 6; side++) box[side] = (float)exp((double)said(values, side, query));
        box[6] = (float)atan2((double)said(rotations, 0, query), (double)said(rotations, 1, query));
        for (int axis = 7; axis < 9; axis++)
            box[axis] = NUMBERS == 8 ? said(values, axis - 1, query) : __uint_as_float(0x7fc00000u);
        box[9] = said(scores, label, query);
        const float bottom = box[2] - box[5] * 0.5f, score = box[9];
        kept = box[0] >= RANGE_X0 && box[0] <= RANGE_X1 && box[1] >= RANGE_Y0 && box[1] <= RANGE_Y1 &&
               bottom >= RANGE_Z0 && bottom <= RANGE_Z1 && SCORE_KEPT;
    }
    add_to_counter(&header[QUERIES_NAN], nan);
    int total;
    const int place = block_exclusive_sum<DECODE_BLOCK>(kept, &total);
    if (kept) {
        for (int word = 0; word < 10; word++) boxes[place * BOX_WORDS + word] = __float_as_int(box[word]);
        boxes[place * BOX_WORDS + 10] = label;
    }
    if (query == 0) header[KEPT] = total;
}
