// Points by frustum, see group.py: the same frustums, in the same order and with the same points, whatever the order in
// which threads run. Rows are the points of the frame and the added ones.
//
// The network runs with a given number of rows and frustums. A frame that has more will be run again; all the same,
// every number in the network's inputs is one that it can look up.
//
//   count_points     how many points each pixel has
//   count_frustums   how many pixels of each tile of TILE pixels have points
//   number_frustums  frustums numbered in the order of their pixels
//   group_points     the first SLOTS points of each frustum; the frustum and the pixel of each point
//   pad_frustums     free slots repeat the first
//   show_frustums    the frustum that each pixel of the network's maps shows: the last of its own
//
// in_cell            (FRUSTUM_H * FRUSTUM_W,) int32, points of each pixel; 0 at the start
// frustums_of_tile   (tiles of the frustums' image,) int32
// frustum_of_cell    (FRUSTUM_H * FRUSTUM_W,) int32: 1 + number of the frustum, 0 where there is none among the first
// coors              (rows, 2) int32, row and column of each point's pixel; 0 behind the last point
// inverse_map        (rows,) int32, frustum of each point; 0 behind the last point
// slots              (frustums, SLOTS) uint32 rows, ascending; UNUSED at the start, 0 behind the last frustum
// strides            (maps,) int32, of each map
// shown              the maps, one behind the other, each (H / stride * W / stride,) int32: as frustum_of_cell

__device__ inline int rows_of(const int* frame, const u32* header, int most) {
    return min(frame[0] + (int)header[GAPS], most);
}

extern "C" __global__ void __launch_bounds__(BLOCK)
count_points(const int* frame, const int* cell_of_row, const u32* header, int most, int* in_cell) {
    const int count = rows_of(frame, header, most);
    for (int row = blockIdx.x * BLOCK + threadIdx.x; row < count; row += gridDim.x * BLOCK)
        if (cell_of_row[row] >= 0) atomicAdd(&in_cell[cell_of_row[row]], 1);
}

__device__ inline bool is_frustum(const int* in_cell, int cell) {
    return cell < FRUSTUM_H * FRUSTUM_W && in_cell[cell] > 0;
}

extern "C" __global__ void __launch_bounds__(BLOCK)
count_frustums(const int* in_cell, int* frustums_of_tile) {
    const int start = blockIdx.x * TILE + threadIdx.x * ITEMS;
    int frustums = 0, total;
    for (int item = 0; item < ITEMS; item++) frustums += is_frustum(in_cell, start + item);
    block_exclusive_sum<BLOCK>(frustums, &total);
    if (threadIdx.x == 0) frustums_of_tile[blockIdx.x] = total;
}

extern "C" __global__ void __launch_bounds__(BLOCK)
number_frustums(const int* in_cell, const int* frustums_of_tile, int frustums, int* frustum_of_cell, u32* header) {
    int before = 0, frustums_before, total;
    for (int tile = threadIdx.x; tile < blockIdx.x; tile += BLOCK) before += frustums_of_tile[tile];
    block_exclusive_sum<BLOCK>(before, &frustums_before);

    const int start = blockIdx.x * TILE + threadIdx.x * ITEMS;
    int own = 0, over = 0;
    for (int item = 0; item < ITEMS; item++) own += is_frustum(in_cell, start + item);
    int number = frustums_before + block_exclusive_sum<BLOCK>(own, &total);
    for (int item = 0; item < ITEMS && start + item < FRUSTUM_H * FRUSTUM_W; item++) {
        const int points = in_cell[start + item];
        number += points > 0;
        frustum_of_cell[start + item] = points > 0 && number <= frustums ? number : 0;
        over += max(0, points - SLOTS);
    }
    add_to_counter((int*)&header[POINTS_OVER], over);
    if (blockIdx.x == gridDim.x - 1 && threadIdx.x == 0) header[FRUSTUMS] = frustums_before + total;
}

extern "C" __global__ void __launch_bounds__(BLOCK)
group_points(const int* frame, const int* cell_of_row, const int* frustum_of_cell, const u32* header, int rows,
             float* points, int* coors, int* inverse_map, u32* slots) {
    const int count = rows_of(frame, header, rows);
    for (int row = blockIdx.x * BLOCK + threadIdx.x; row < rows; row += gridDim.x * BLOCK) {
        const int cell = row < count ? cell_of_row[row] : -1;
        const int frustum = cell < 0 ? -1 : frustum_of_cell[cell] - 1;
        coors[2 * row] = cell < 0 ? 0 : cell / FRUSTUM_W;
        coors[2 * row + 1] = cell < 0 ? 0 : cell % FRUSTUM_W;
        inverse_map[row] = max(0, frustum);
        if (row >= count)
            for (int feature = 0; feature < FEATURES; feature++) points[(long long)row * FEATURES + feature] = 0.0f;
        if (frustum < 0) continue;
        // As in voxelize.cu: of all that reach a slot, the smallest stays and the rest goes on.
        u32* own = slots + (long long)frustum * SLOTS;
        u32 number = row;
        if (*(volatile u32*)&own[SLOTS - 1] < number) continue;
        for (int slot = 0; slot < SLOTS && number != UNUSED; slot++) {
            if (*(volatile u32*)&own[slot] < number) continue;
            number = max(number, atomicMin(&own[slot], number));
        }
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK)
pad_frustums(const u32* header, int frustums, u32* slots) {
    const int found = header[FRUSTUMS];
    for (int frustum = blockIdx.x * BLOCK + threadIdx.x; frustum < frustums; frustum += gridDim.x * BLOCK) {
        u32* own = slots + (long long)frustum * SLOTS;
        const u32 first = frustum < found && own[0] != UNUSED ? own[0] : 0;
        for (int slot = 0; slot < SLOTS; slot++)
            if (own[slot] == UNUSED) own[slot] = first;
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK)
show_frustums(const int* frustum_of_cell, const int* strides, int maps, int* shown) {
    for (int map = 0; map < maps; map++) {
        const int stride = strides[map];
        const int width = FRUSTUM_W / stride, pixels = FRUSTUM_H / stride * width;
        for (int pixel = blockIdx.x * BLOCK + threadIdx.x; pixel < pixels; pixel += gridDim.x * BLOCK) {
            const int* corner = frustum_of_cell + pixel / width * stride * FRUSTUM_W + pixel % width * stride;
            int last = 0;
            for (int line = 0; line < stride; line++)
                for (int column = 0; column < stride; column++) last = max(last, corner[line * FRUSTUM_W + column]);
            shown[pixel] = last;
        }
        shown += pixels;
    }
}
