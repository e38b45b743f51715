// The input of a YOLOX, and the choice of its rows, see letterbox.py and decode.py. A grid has a line of blocks for each
// image of the request; what follows is that of one image, and those of all images lie one behind the other.
//
// views    (VIEW_WORDS,) int64: addresses of image, columns and lines; width of the image, scaled width and height [px]
// image    (source height, source width, 3) uint8: blue, green, red
// columns  (scaled width, 4) int32: the two columns that a column of the input lies between, and their weights
// lines    (scaled height, 4) int32: the same of lines; weights add up to 2^11, as OpenCV's do
// norm     (6,) float32: mean and deviation of each channel of the input; null: values stay 0-255. The same for all images
// input    (3, height, width) INPUT_T
// rows     (ROWS, COLUMNS) OUTPUT_T
// picks    (ROWS,) int32, values (ROWS, COLUMNS) float32: the rows that score high enough, in no order
// headers  (HEADER_WORDS,) int32: how many these are, how many rows hold a NaN, how many boxes are left, see nms.cu

#define YOLOX_BLOCK 256
#define PICKED 0
#define NOT_NUMBERS 1
#define KEPT 2
#define HEADER_WORDS 4
#define OBJECTNESS 4
#define VIEW_WORDS 6

// Linear interpolation of bytes as OpenCV does it: 2^11 a pixel, four bits cut off between the two directions.
extern "C" __global__ void __launch_bounds__(YOLOX_BLOCK)
letterbox(const long long* views, const float* norm, int width, int height, int fill, int rgb, INPUT_T* input) {
    const long long* view = views + VIEW_WORDS * blockIdx.y;
    const unsigned char* image = (const unsigned char*)view[0];
    const int *columns = (const int*)view[1], *lines = (const int*)view[2];
    const int source_width = view[3], scaled_width = view[4], scaled_height = view[5];
    const int pixels = width * height;
    input += (long long)blockIdx.y * 3 * pixels;
    for (int pixel = blockIdx.x * YOLOX_BLOCK + threadIdx.x; pixel < pixels; pixel += gridDim.x * YOLOX_BLOCK) {
        const int x = pixel % width, y = pixel / width;
        const bool inside = x < scaled_width && y < scaled_height;
        for (int channel = 0; channel < 3; channel++) {
            int level = fill;
            if (inside) {
                const int own = rgb ? 2 - channel : channel;
                const int *column = columns + 4 * x, *line = lines + 4 * y;
                int sums[2];
                for (int side = 0; side < 2; side++) {
                    const unsigned char* of_line = image + (long long)line[side] * source_width * 3 + own;
                    sums[side] = of_line[3 * column[0]] * column[2] + of_line[3 * column[1]] * column[3];
                }
                level = ((line[2] * (sums[0] >> 4) >> 16) + (line[3] * (sums[1] >> 4) >> 16) + 2) >> 2;
            }
            float value = (float)level;
            if (norm != nullptr) value = (value - norm[channel]) / norm[3 + channel];
            write_value(input, (long long)channel * pixels + pixel, value);
        }
    }
}

extern "C" __global__ void __launch_bounds__(YOLOX_BLOCK)
select_rows(const OUTPUT_T* rows, int count, int columns, float threshold, int inclusive, int* picks, float* values,
            int* headers) {
    rows += (long long)blockIdx.y * count * columns;
    values += (long long)blockIdx.y * count * columns;
    picks += (long long)blockIdx.y * count;
    int* header = headers + blockIdx.y * HEADER_WORDS;
    int not_numbers = 0;
    for (int row = blockIdx.x * YOLOX_BLOCK + threadIdx.x; row < count; row += gridDim.x * YOLOX_BLOCK) {
        const long long first = (long long)row * columns;
        bool nan = false, class_nan = false;
        float best = 0.0f;
        for (int column = 0; column < columns; column++) {
            const float value = read_value(rows, first + column);
            nan |= isnan(value);
            if (column > OBJECTNESS) {
                class_nan |= isnan(value);
                if (column == OBJECTNESS + 1 || value > best) best = value;
            }
        }
        not_numbers += nan;
        const float score = best * read_value(rows, first + OBJECTNESS);
        if (class_nan || !(inclusive ? score >= threshold : score > threshold)) continue;
        const int slot = atomicAdd(&header[PICKED], 1);
        picks[slot] = row;
        for (int column = 0; column < columns; column++)
            values[(long long)slot * columns + column] = read_value(rows, first + column);
    }
    add_to_counter(&header[NOT_NUMBERS], not_numbers);
}
