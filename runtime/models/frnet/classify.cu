// The class of each point, see PointClasses.of_probabilities and steps.py.
//
// probabilities  (rows, classes) PROBABILITY_T, of the points of the frame and of added ones
// scores         (N,) float32, probability of the class; margins (N,) float32, what it is above the next
// labels         (N,) uint8; UNLABELED for a point of the class to be ignored, and for one that has no direction

#define UNLABELED 255

extern "C" __global__ void __launch_bounds__(BLOCK)
classify_points(const int* frame, const int* cell_of_row, const PROBABILITY_T* probabilities, int classes,
                int ignored, float* scores, float* margins, unsigned char* labels) {
    const int count = frame[0];
    const float nan = __int_as_float(0x7fc00000);
    for (int row = blockIdx.x * BLOCK + threadIdx.x; row < count; row += gridDim.x * BLOCK) {
        float best = nan, second = nan;
        int label = 0;
        bool has_nan = false;
        for (int number = 0; number < classes; number++) {
            const float value = read_value(probabilities, (long long)row * classes + number);
            // The first NaN is taken for the largest, as NumPy does, but not for a score.
            if (isnan(value)) {
                if (!has_nan) label = number;
                has_nan = true;
            } else if (!(value <= best)) {
                second = best;
                best = value;
                if (!has_nan) label = number;
            } else if (!(value <= second))
                second = value;
        }
        const bool asked = cell_of_row[row] >= 0;
        scores[row] = asked ? best : 0.0f;
        margins[row] = asked ? best - second : 0.0f;
        labels[row] = asked && label != ignored ? label : UNLABELED;
    }
}
