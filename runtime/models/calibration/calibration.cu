// The five channels of the calibration status classifier, see runtime/models/calibration/steps.py.
//
// request   what differs from one request to the next, so that everything else is recorded once
// points    (count, columns) float32: x, y, z [m] in the lidar frame, intensity 0-255; further columns are not read
// cells     (count,) int32: the pixel that a point falls on, row * width + column; -1: the image does not show it
// depths    (count,) float64, along the optical axis [m]
// nearest   (height * width,) uint64: bits of the least depth at a pixel; positive doubles are in the order of their bits
// latest    (height * width,) uint32: LAST - (number of the latest of the points at that depth); UNUSED: no point
// image     (height, width, 3) uint8, as the camera gave it
// fused     (1, 5, height, width) INPUT_T: blue, green, red, depth, intensity
// header    (2,) int32: points that the image shows, pixels that show a point

#define INPUT_BLOCK 256
#define SEEN 0
#define PAINTED 1
#define LAST (UNUSED - 1u)
// OpenCV interpolates in steps of 1/32 pixel, with weights that add up to 2^15.
#define STEPS 32
#define WEIGHT_BITS 15

// lidar2cam  its first three rows
// camera     fx, fy, cx, cy
// source     (height, width, 2), fraction (height, width): OpenCV's maps; null: the image has no distortion
struct Request {
    double lidar2cam[12], camera[4];
    const short* source;
    const unsigned short* fraction;
    int count, columns;
};

__device__ inline u64 bits_of(double value) {
    u64 bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

// Where each point falls, and how near the nearest point at each pixel is.
extern "C" __global__ void __launch_bounds__(INPUT_BLOCK)
project_points(const Request* request, const float* points, int height, int width, double max_depth, int reach,
               int* cells, double* depths, u64* nearest, int* header) {
    const double *pose = request->lidar2cam, *camera = request->camera;
    const int count = request->count, columns = request->columns;
    int seen = 0;
    for (int point = blockIdx.x * INPUT_BLOCK + threadIdx.x; point < count; point += gridDim.x * INPUT_BLOCK) {
        const float* own = points + (long long)columns * point;
        const double x = own[0], y = own[1], z = own[2];
        const double depth = pose[8] * x + pose[9] * y + pose[10] * z + pose[11];
        int cell = -1;
        if (depth > 0 && depth < max_depth) {
            const double nearness = 1.0 / depth;
            const double column = (pose[0] * x + pose[1] * y + pose[2] * z + pose[3]) * nearness * camera[0] + camera[2];
            const double row = (pose[4] * x + pose[5] * y + pose[6] * z + pose[7]) * nearness * camera[1] + camera[3];
            if (column >= 0 && column <= width - 1 && row >= 0 && row <= height - 1) {
                const int u = (int)column, v = (int)row;
                cell = v * width + u;
                const u64 bits = bits_of(depth);
                for (int y_of_patch = max(v - reach, 0); y_of_patch <= min(v + reach, height - 1); y_of_patch++)
                    for (int x_of_patch = max(u - reach, 0); x_of_patch <= min(u + reach, width - 1); x_of_patch++)
                        atomicMin(&nearest[(long long)y_of_patch * width + x_of_patch], bits);
                seen++;
            }
        }
        cells[point] = cell;
        depths[point] = depth;
    }
    add_to_counter(&header[SEEN], seen);
}

// Which point is the nearest at each pixel; of several at the same depth the latest.
extern "C" __global__ void __launch_bounds__(INPUT_BLOCK)
choose_points(const Request* request, int height, int width, int reach, const int* cells, const double* depths,
              const u64* nearest, u32* latest) {
    const int count = request->count;
    for (int point = blockIdx.x * INPUT_BLOCK + threadIdx.x; point < count; point += gridDim.x * INPUT_BLOCK) {
        const int cell = cells[point];
        if (cell < 0) continue;
        const int u = cell % width, v = cell / width;
        const u64 bits = bits_of(depths[point]);
        for (int row = max(v - reach, 0); row <= min(v + reach, height - 1); row++)
            for (int column = max(u - reach, 0); column <= min(u + reach, width - 1); column++) {
                const long long pixel = (long long)row * width + column;
                if (nearest[pixel] == bits) atomicMin(&latest[pixel], LAST - (u32)point);
            }
    }
}

// The channels that show points; the image may be on its way meanwhile.
extern "C" __global__ void __launch_bounds__(INPUT_BLOCK)
paint_points(const Request* request, const float* points, const double* depths, const u32* latest, int height, int width,
             double max_depth, INPUT_T* fused, int* header) {
    const int columns = request->columns;
    const long long pixels = (long long)height * width;
    int painted = 0;
    for (long long pixel = blockIdx.x * INPUT_BLOCK + threadIdx.x; pixel < pixels; pixel += gridDim.x * INPUT_BLOCK) {
        float depth = 0.0f, intensity = 0.0f;
        if (latest[pixel] != UNUSED) {
            const u32 point = LAST - latest[pixel];
            depth = (float)(255.0 * depths[point] / max_depth) / 255.0f;
            intensity = points[(long long)columns * point + 3] / 255.0f;
            painted++;
        }
        write_value(fused, 3 * pixels + pixel, depth);
        write_value(fused, 4 * pixels + pixel, intensity);
    }
    add_to_counter(&header[PAINTED], painted);
}

// The image at a place between pixels, 0 outside: bilinear, in OpenCV's fixed point.
__device__ inline void interpolate(const unsigned char* image, int height, int width, int column, int row, int fraction,
                                   int* channels) {
    const int right = fraction % STEPS, low = fraction / STEPS;
    for (int channel = 0; channel < 3; channel++) channels[channel] = 1 << (WEIGHT_BITS - 1);
    for (int corner = 0; corner < 4; corner++) {
        const int x = column + corner % 2, y = row + corner / 2;
        if (x < 0 || x >= width || y < 0 || y >= height) continue;
        const int weight = (corner % 2 ? right : STEPS - right) * (corner / 2 ? low : STEPS - low) * STEPS;
        const unsigned char* pixel = image + 3 * ((long long)y * width + x);
        for (int channel = 0; channel < 3; channel++) channels[channel] += weight * pixel[channel];
    }
    for (int channel = 0; channel < 3; channel++) channels[channel] >>= WEIGHT_BITS;
}

extern "C" __global__ void __launch_bounds__(INPUT_BLOCK)
fuse_image(const Request* request, const unsigned char* image, int height, int width, INPUT_T* fused) {
    const short* source = request->source;
    const unsigned short* fraction = request->fraction;
    const long long pixels = (long long)height * width;
    for (long long pixel = blockIdx.x * INPUT_BLOCK + threadIdx.x; pixel < pixels; pixel += gridDim.x * INPUT_BLOCK) {
        int channels[3];
        if (source == nullptr)
            for (int channel = 0; channel < 3; channel++) channels[channel] = image[3 * pixel + channel];
        else
            interpolate(image, height, width, source[2 * pixel], source[2 * pixel + 1], fraction[pixel], channels);
        for (int channel = 0; channel < 3; channel++)
            write_value(fused, channel * pixels + pixel, (float)channels[channel] / 255.0f);
    }
}
