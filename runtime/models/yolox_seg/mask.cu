// The mask of a YOLOX with a mask head, see mask.py.
//
// probabilities  (batch, CLASSES, height, width) MASK_T, of which the first image is read
// logs           (CLASSES, height, width) float32, their logarithms
// lines          (image height, 3) int32: the two lines that a line of the image lies between, and the bits of a float,
//                weight of the second
// columns        (image width, 3) int32: the same of columns
// labels         (image height, image width) uint8, UNLABELED where a probability is NaN
// margins        (image height, image width) uint8: probability of the class less that of the next, in steps of 1/255
// pixels_nan     counts the pixels with a NaN

#define MASK_BLOCK 256
#define UNLABELED 255

extern "C" __global__ void __launch_bounds__(MASK_BLOCK)
take_logs(const MASK_T* probabilities, int count, float* logs) {
    for (int item = blockIdx.x * MASK_BLOCK + threadIdx.x; item < count; item += gridDim.x * MASK_BLOCK) {
        const float value = read_value(probabilities, item);
        logs[item] = (float)log((double)(value < LEAST ? LEAST : value));
    }
}

// Where a pixel of the image lies in a layer of the network's.
struct Place {
    long long above, below;
    int left, right;
    float of_right, of_below;
};

template <class T>
__device__ inline float interpolated(const T* layers, long long layer, Place place) {
    const float of_left = 1.0f - place.of_right, of_above = 1.0f - place.of_below;
    const long long above = layer + place.above, below = layer + place.below;
    const float top = read_value(layers, above + place.left) * of_left
                      + read_value(layers, above + place.right) * place.of_right;
    const float bottom = read_value(layers, below + place.left) * of_left
                         + read_value(layers, below + place.right) * place.of_right;
    return top * of_above + bottom * place.of_below;
}

// What a class whose logarithm is so much below the best one's has of the best one's probability.
__device__ inline float share_of(float difference) {
    return difference > NEGLIGIBLE ? (float)exp((double)difference) : 0.0f;
}

__device__ inline Place place_of(const int* line, const int* column, int width) {
    return {(long long)line[0] * width,     (long long)line[1] * width,     column[0], column[1],
            __int_as_float(column[2]), __int_as_float(line[2])};
}

// Of logarithms, which are interpolated, or of probabilities, whose nearest pixel counts.
template <bool LOGS, class T>
__device__ inline void decide(const T* layers, int height, int width, const int* lines, const int* columns,
                              int image_height, int image_width, unsigned char* labels, unsigned char* margins,
                              int* pixels_nan) {
    const long long pixels = (long long)image_height * image_width, size = (long long)height * width;
    int not_numbers = 0;
    for (long long pixel = blockIdx.x * MASK_BLOCK + threadIdx.x; pixel < pixels; pixel += gridDim.x * MASK_BLOCK) {
        const Place place = place_of(lines + 3 * (pixel / image_width), columns + 3 * (pixel % image_width), width);
        float best = __int_as_float(0xff800000), second = best;  // -inf
        float values[CLASSES];
        int label = 0;
        bool nan = false;
        for (int number = 0; number < CLASSES; number++) {
            const float value = LOGS ? interpolated(layers, number * size, place)
                                     : read_value(layers, number * size + place.above + place.left);
            values[number] = value;
            nan |= isnan(value);
            if (value > best) {
                second = best;
                best = value;
                label = number;
            } else if (value > second)
                second = value;
        }
        float margin = best - second;
        if (LOGS) {
            float total = best - best;
            for (int number = 0; number < CLASSES; number++) total += share_of(values[number] - best);
            margin = __fdiv_rn(1.0f - share_of(second - best), total);
        }
        labels[pixel] = nan ? UNLABELED : label;
        margins[pixel] = !nan && margin > 0.0f ? (unsigned char)rintf(255.0f * min(margin, 1.0f)) : 0;
        not_numbers += nan;
    }
    add_to_counter(pixels_nan, not_numbers);
}

extern "C" __global__ void __launch_bounds__(MASK_BLOCK)
decide_by_logs(const float* logs, int height, int width, const int* lines, const int* columns, int image_height,
               int image_width, unsigned char* labels, unsigned char* margins, int* pixels_nan) {
    decide<true>(logs, height, width, lines, columns, image_height, image_width, labels, margins, pixels_nan);
}

extern "C" __global__ void __launch_bounds__(MASK_BLOCK)
decide_in_place(const MASK_T* probabilities, int height, int width, const int* lines, const int* columns,
                int image_height, int image_width, unsigned char* labels, unsigned char* margins, int* pixels_nan) {
    decide<false>(probabilities, height, width, lines, columns, image_height, image_width, labels, margins, pixels_nan);
}
