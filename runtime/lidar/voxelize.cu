// Hard voxelization, see runtime/lidar/voxelize.py: the same voxels, in the same order and with the same limits, whatever the
// order in which threads run. Four kernels, since each needs the whole result of the one before:
//
//   cells   the cell of each point, and the first point of each cell (a minimum, which has no order)
//   count   how many first points each tile of TILE points has
//   number  voxels numbered by their first points
//   slots   the first MAX_POINTS points of each voxel, in the order of the frame
//
// frame          (4 + N * C) 32-bit words: N, three unused, then (N, C) float32 points
// first_of_cell  (nz * ny * nx,) uint32, UNUSED at the start
// cell_of_point  (N,) int32, -1 outside the grid or not finite
// voxel_of_cell  (nz * ny * nx,) int32, -1 where the voxel did not fit; cells without points hold rubbish
// cell_of_voxel  (MAX_VOXELS,) int32
// slots          (MAX_VOXELS, M) uint32 point numbers, ascending, UNUSED behind the last one; UNUSED at the start
// in_voxel       (MAX_VOXELS,) int32 points that fell into each voxel, those over the limit too; 0 at the start

#define FRAME_HEADER 4
#define VOXELIZE_BLOCK 256
#define ITEMS 4
#define TILE (VOXELIZE_BLOCK * ITEMS)

__device__ inline bool cell_along(float value, float minimum, float size, int cells, int* cell) {
    const float quotient = __fdiv_rn(__fsub_rn(value, minimum), size);
    const bool inside = quotient >= 0.0f && quotient < (float)cells;
    *cell = inside ? (int)quotient : 0;
    return inside;
}

extern "C" __global__ void __launch_bounds__(VOXELIZE_BLOCK)
voxelize_cells(const int* frame, u32* first_of_cell, int* cell_of_point, int* header) {
    const int count = frame[0];
    const float* points = (const float*)(frame + FRAME_HEADER);
    int nan = 0, outside = 0;
    for (int point = blockIdx.x * blockDim.x + threadIdx.x; point < count; point += gridDim.x * blockDim.x) {
        const float* values = points + (long long)point * POINT_FEATURES;
        bool finite = true;
        for (int feature = 0; feature < POINT_FEATURES; feature++) finite = finite && isfinite(values[feature]);
        int cell = -1;
        if (finite) {
            int x, y, z;
            const bool inside_z = cell_along(values[2], GRID_MIN_Z, VOXEL_Z, GRID_NZ, &z);
            const bool inside_y = cell_along(values[1], GRID_MIN_Y, VOXEL_Y, GRID_NY, &y);
            const bool inside_x = cell_along(values[0], GRID_MIN_X, VOXEL_X, GRID_NX, &x);
            if (inside_x && inside_y && inside_z) {
                cell = (z * GRID_NY + y) * GRID_NX + x;
                atomicMin(&first_of_cell[cell], (u32)point);
            } else {
                outside++;
            }
        } else {
            nan++;
        }
        cell_of_point[point] = cell;
    }
    add_to_counter(&header[POINTS_NAN], nan);
    add_to_counter(&header[POINTS_OUT_OF_RANGE], outside);
}

// Marks which of a thread's ITEMS consecutive points are the first of their cells; returns how many.
__device__ inline int first_points(
    int count, const int* cell_of_point, const u32* first_of_cell, int start, bool* is_first, int* cells) {
    int firsts = 0;
    for (int item = 0; item < ITEMS; item++) {
        const int point = start + item;
        cells[item] = point < count ? cell_of_point[point] : -1;
        is_first[item] = cells[item] >= 0 && first_of_cell[cells[item]] == (u32)point;
        firsts += is_first[item];
    }
    return firsts;
}

extern "C" __global__ void __launch_bounds__(VOXELIZE_BLOCK)
voxelize_count(const int* frame, const u32* first_of_cell, const int* cell_of_point, int* firsts_of_tile) {
    bool is_first[ITEMS];
    int cells[ITEMS], total;
    const int start = blockIdx.x * TILE + threadIdx.x * ITEMS;
    const int firsts = first_points(frame[0], cell_of_point, first_of_cell, start, is_first, cells);
    block_exclusive_sum<VOXELIZE_BLOCK>(firsts, &total);
    if (threadIdx.x == 0) firsts_of_tile[blockIdx.x] = total;
}

extern "C" __global__ void __launch_bounds__(VOXELIZE_BLOCK)
voxelize_number(const int* frame, const u32* first_of_cell, const int* cell_of_point, const int* firsts_of_tile,
                int* voxel_of_cell, int* cell_of_voxel, int* header) {
    int before = 0, firsts_before, total;
    for (int tile = threadIdx.x; tile < blockIdx.x; tile += VOXELIZE_BLOCK) before += firsts_of_tile[tile];
    block_exclusive_sum<VOXELIZE_BLOCK>(before, &firsts_before);

    bool is_first[ITEMS];
    int cells[ITEMS];
    const int start = blockIdx.x * TILE + threadIdx.x * ITEMS;
    const int firsts = first_points(frame[0], cell_of_point, first_of_cell, start, is_first, cells);
    int voxel = firsts_before + block_exclusive_sum<VOXELIZE_BLOCK>(firsts, &total);
    for (int item = 0; item < ITEMS; item++) {
        if (!is_first[item]) continue;
        const bool fits = voxel < MAX_VOXELS;
        voxel_of_cell[cells[item]] = fits ? voxel : -1;
        if (fits) cell_of_voxel[voxel] = cells[item];
        voxel++;
    }
    if (blockIdx.x == gridDim.x - 1 && threadIdx.x == 0) header[VOXELS_FOUND] = firsts_before + total;
}

// A point goes down the slots of its voxel: the smaller number stays, the larger goes on. Whatever the order in which
// points come, slot s ends with the s-th smallest number: of all that reach it, the smallest stays and the rest goes on.
extern "C" __global__ void __launch_bounds__(VOXELIZE_BLOCK)
voxelize_slots(const int* frame, const int* cell_of_point, const int* voxel_of_cell, u32* slots, int* in_voxel,
               int* header) {
    const int count = frame[0];
    int dropped = 0;
    for (int point = blockIdx.x * blockDim.x + threadIdx.x; point < count; point += gridDim.x * blockDim.x) {
        const int cell = cell_of_point[point];
        if (cell < 0) continue;
        const int voxel = voxel_of_cell[cell];
        if (voxel < 0) {
            dropped++;
            continue;
        }
        atomicAdd(&in_voxel[voxel], 1);
        u32* row = slots + (long long)voxel * MAX_POINTS;
        u32 number = point;
        // Slots only ever get smaller: a number above what is read there, however old that is, can't stay.
        if (*(volatile u32*)&row[MAX_POINTS - 1] < number) continue;
        for (int slot = 0; slot < MAX_POINTS && number != UNUSED; slot++) {
            if (*(volatile u32*)&row[slot] < number) continue;
            number = max(number, atomicMin(&row[slot], number));
        }
    }
    add_to_counter(&header[POINTS_IN_DROPPED], dropped);
}
