// The input of a YOLOX, and the choice of its rows, see letterbox.py and decode.py.
//
// image    (source height, source width, 3) uint8: blue, green, red
// columns  (scaled width, 4) int32: the two columns that a column of the input lies between, and their weights
// lines    (scaled height, 4) int32: the same of lines; weights add up to 2^11, as OpenCV's do
// norm     (6,) float32: mean and deviation of each channel of the input; null: values stay 0-255
// input    (batch, 3, height, width) INPUT_T, of which the first image is written
// rows     (batch, ROWS, COLUMNS) OUTPUT_T, of which the first image is read
// picks    (ROWS,) int32, values (ROWS, COLUMNS) float32: the rows that score high enough, in no order
// header   (HEADER_WORDS,) int32: how many these are, how many rows hold a NaN, how many boxes are left, see nms.cu

#define YOLOX_BLOCK 256
#define PICKED 0
#define NOT_NUMBERS 1
#define KEPT 2
#define HEADER_WORDS 4
#define OBJECTNESS 4

// Linear interpolation of bytes as OpenCV does it: 2^11 a pixel, four bits cut off between the two directions.
extern "C" __global__ void __launch_bounds__(YOLOX_BLOCK)
letterbox(const unsigned char* image, const int* columns, const int* lines, const float* norm, int source_width,
          int scaled_width, int scaled_height, int width, int height, int fill, int rgb, INPUT_T* input) {
    const int pixels = width * height;
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
            int* header) {
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
