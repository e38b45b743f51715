// Scatter: pillar features laid out as a bird's-eye-view image, see runtime/models/centerpoint/scatter.py.
//
// pillars        (rows, 1, CHANNELS) PILLAR_T
// cell_of_voxel  (MAX_VOXELS,) int32, y * nx + x
// canvas         (1, CHANNELS, ny, nx) CANVAS_T, zero where no pillar is; items of neighboring channels are CANVAS_CHANNEL
//                apart and those of neighboring cells CANVAS_CELL, as the head's input is laid out
//
// A block moves PILLARS pillars by way of shared memory: read a pillar at a time, written along whatever is side by side.

#define PILLARS 32
#define SCATTER_BLOCK 256
#define CHANNELS_FIRST (CANVAS_CELL == 1)

// Which of a block's values is the `index`-th in the order of the canvas.
__device__ inline int pillar_at(int index) { return CHANNELS_FIRST ? index % PILLARS : index / CHANNELS; }
__device__ inline int channel_at(int index) { return CHANNELS_FIRST ? index / PILLARS : index % CHANNELS; }
__device__ inline long long place_of(int cell, int channel) {
    return (long long)channel * CANVAS_CHANNEL + (long long)cell * CANVAS_CELL;
}

extern "C" __global__ void __launch_bounds__(SCATTER_BLOCK)
scatter(const PILLAR_T* pillars, const int* cell_of_voxel, CANVAS_T* canvas, const int* header, int rows) {
    __shared__ PILLAR_T tile[PILLARS][CHANNELS + 1];
    const int voxels = min(min(header[VOXELS_FOUND], MAX_VOXELS), rows);
    const int first = blockIdx.x * PILLARS;
    if (first >= voxels) return;
    const int count = min(PILLARS, voxels - first);
    for (int index = threadIdx.x; index < count * CHANNELS; index += SCATTER_BLOCK)
        tile[index / CHANNELS][index % CHANNELS] = pillars[(long long)first * CHANNELS + index];
    __syncthreads();
    for (int index = threadIdx.x; index < PILLARS * CHANNELS; index += SCATTER_BLOCK) {
        const int pillar = pillar_at(index), channel = channel_at(index);
        if (pillar < count)
            write_value(canvas, place_of(cell_of_voxel[first + pillar], channel), read_value(tile[pillar], channel));
    }
}

// Clears the canvas where the frame before wrote: `header` and `cell_of_voxel` are still its own.
extern "C" __global__ void __launch_bounds__(SCATTER_BLOCK)
clear_canvas(const int* cell_of_voxel, CANVAS_T* canvas, const int* header) {
    const int voxels = min(header[VOXELS_FOUND], MAX_VOXELS);
    const int first = blockIdx.x * PILLARS;
    for (int index = threadIdx.x; index < PILLARS * CHANNELS; index += SCATTER_BLOCK) {
        const int pillar = first + pillar_at(index);
        if (pillar < voxels) canvas[place_of(cell_of_voxel[pillar], channel_at(index))] = (CANVAS_T)0;
    }
}
