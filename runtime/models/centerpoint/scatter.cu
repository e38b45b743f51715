// Scatter: pillar features laid out as a bird's-eye-view image, see runtime/models/centerpoint/scatter.py.
//
// pillars        (rows, 1, CHANNELS) PILLAR_T
// cell_of_voxel  (MAX_VOXELS,) int32, y * nx + x
// canvas         (1, CHANNELS, ny, nx) PILLAR_T, zero where no pillar is
//
// A block moves PILLARS pillars by way of shared memory: read a pillar at a time, written a channel at a time.

#define PILLARS 32
#define SCATTER_BLOCK 256

extern "C" __global__ void __launch_bounds__(SCATTER_BLOCK)
scatter(const PILLAR_T* pillars, const int* cell_of_voxel, PILLAR_T* canvas, const int* header, int rows) {
    __shared__ PILLAR_T tile[PILLARS][CHANNELS + 1];
    const int voxels = min(min(header[VOXELS_FOUND], MAX_VOXELS), rows);
    const int first = blockIdx.x * PILLARS;
    if (first >= voxels) return;
    const int count = min(PILLARS, voxels - first);
    for (int index = threadIdx.x; index < count * CHANNELS; index += SCATTER_BLOCK)
        tile[index / CHANNELS][index % CHANNELS] = pillars[(long long)first * CHANNELS + index];
    __syncthreads();
    const int pillar = threadIdx.x % PILLARS;
    if (pillar >= count) return;
    const int cell = cell_of_voxel[first + pillar];
    for (int channel = threadIdx.x / PILLARS; channel < CHANNELS; channel += SCATTER_BLOCK / PILLARS)
        canvas[(long long)channel * (GRID_NX * GRID_NY) + cell] = tile[pillar][channel];
}

// Clears the canvas where the frame before wrote: `header` and `cell_of_voxel` are still its own.
extern "C" __global__ void __launch_bounds__(SCATTER_BLOCK)
clear_canvas(const int* cell_of_voxel, PILLAR_T* canvas, const int* header) {
    const int voxels = min(header[VOXELS_FOUND], MAX_VOXELS);
    const int first = blockIdx.x * PILLARS;
    const int pillar = first + threadIdx.x % PILLARS;
    if (pillar >= voxels) return;
    const int cell = cell_of_voxel[pillar];
    for (int channel = threadIdx.x / PILLARS; channel < CHANNELS; channel += SCATTER_BLOCK / PILLARS)
        canvas[(long long)channel * (GRID_NX * GRID_NY) + cell] = (PILLAR_T)0;
}
