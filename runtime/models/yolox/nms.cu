// Suppression of the rows that select_rows picked, see nms.py and steps.py: decode, rank, compare, keep. A grid has a line
// of blocks for each image of the request; what follows is that of one image, and those of all lie one behind the other.
//
// cells      (ROWS, 3) float32: corner and stride of each row's cell [px]; null: rows are decoded. The same for all images
// scales     (2,) float32: pixels of the network's input per pixel of the image, across and down
// decoded    (MOST, DECODED_WORDS) float32: left, top, right, bottom, score, label; in pixels of the image, where boxes are
//            compared in whole pixels in those of the network's input
// keys       (MOST,) uint64: the bits of the score, then the row's number inverted, so that a larger key is a better box
// boxes      (MOST, BOX_WORDS) float32: left, top, right, bottom as they are compared, then the label
// order      (MOST,) int32: the picks, best first
// ranked     (MOST, BOX_WORDS) float32: boxes, best first, classes moved apart, with the area in the label's place
// overlaps   (MOST, WORDS) uint64: bit j of row i says that box i suppresses box j; only for j > i
// result     the headers of all images, HEADER_WORDS int32 each; then for each image (most boxes, DECODED_WORDS) float32:
//            what is left of decoded, best first
//
// More picks than MOST are left to the host: KEPT stays as it was.

#define NMS_BLOCK 256
#define KEEP_BLOCK 1024
#define BOX_WORDS 5
#define DECODED_WORDS 6
#define WORD 64
#define WORDS (MOST / WORD)
#define PARTS (KEEP_BLOCK / WORDS)

__device__ inline u64 better(float score, int row) {
    // The two zeros are equal.
    const u32 bits = __float_as_uint(score + 0.0f);
    const u32 ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return ((u64)ascending << 32) | (u32)~row;
}

// As NumPy's: not a number if either is none.
__device__ inline float greater_of(float a, float b) { return a >= b || isnan(a) ? a : b; }
__device__ inline float lesser_of(float a, float b) { return a <= b || isnan(a) ? a : b; }

// Corners in the pixels that boxes are compared in; whole pixels where `whole`.
extern "C" __global__ void __launch_bounds__(NMS_BLOCK)
decode_picks(const int* picks, const float* values, const float* cells, int rows, int columns, const float* scales,
             int whole, const int* headers, u64* keys, float* decoded, float* boxes) {
    const int image = blockIdx.y, count = headers[image * HEADER_WORDS + PICKED];
    if (count > MOST) return;
    picks += (long long)image * rows;
    values += (long long)image * rows * columns;
    scales += 2 * image;
    keys += image * MOST;
    decoded += image * MOST * DECODED_WORDS;
    boxes += image * MOST * BOX_WORDS;
    for (int pick = blockIdx.x * NMS_BLOCK + threadIdx.x; pick < count; pick += gridDim.x * NMS_BLOCK) {
        const float* row = values + (long long)pick * columns;
        int label = 0;
        for (int column = OBJECTNESS + 2; column < columns; column++)
            if (row[column] > row[OBJECTNESS + 1 + label]) label = column - OBJECTNESS - 1;
        const float score = row[OBJECTNESS + 1 + label] * row[OBJECTNESS];
        keys[pick] = better(score, picks[pick]);
        float *box = boxes + pick * BOX_WORDS, *own = decoded + pick * DECODED_WORDS;
        own[4] = score;
        own[5] = (float)label;
        for (int axis = 0; axis < 2; axis++) {
            float center = row[axis], size = row[2 + axis];
            if (cells != nullptr) {
                const float* cell = cells + 3 * (long long)picks[pick];
                center = center * cell[2] + cell[axis];
                size = (float)exp((double)size) * cell[2];
            }
            const float half = size / 2.0f;
            float low = center - half, high = center + half;
            if (!whole) {
                low = low / scales[axis];
                high = high / scales[axis];
            }
            own[axis] = low;
            own[2 + axis] = high;
            if (whole) {
                high = truncf(high - low);
                low = truncf(low);
                high = low + high;
            }
            box[axis] = low;
            box[2 + axis] = high;
        }
        box[4] = (float)label;
    }
}

// A pick's place is the number of better ones. Every block looks for the largest corner by itself.
extern "C" __global__ void __launch_bounds__(NMS_BLOCK)
rank_picks(const u64* keys, const float* boxes, int by_class, float extra, const int* headers, int* order,
           float* ranked) {
    __shared__ u64 others[NMS_BLOCK];
    __shared__ float largest[NMS_BLOCK];
    const int image = blockIdx.y, count = headers[image * HEADER_WORDS + PICKED];
    if (count > MOST || blockIdx.x * NMS_BLOCK >= count) return;
    keys += image * MOST;
    boxes += image * MOST * BOX_WORDS;
    order += image * MOST;
    ranked += image * MOST * BOX_WORDS;
    float own = __int_as_float(0xff800000);
    for (int index = threadIdx.x; index < count; index += NMS_BLOCK)
        for (int corner = 0; corner < 4; corner++) own = greater_of(own, boxes[index * BOX_WORDS + corner]);
    largest[threadIdx.x] = own;
    __syncthreads();
    for (int half = NMS_BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) largest[threadIdx.x] = greater_of(largest[threadIdx.x], largest[threadIdx.x + half]);
        __syncthreads();
    }
    const int pick = blockIdx.x * NMS_BLOCK + threadIdx.x;
    const u64 key = pick < count ? keys[pick] : 0;
    int place = 0;
    for (int first = 0; first < count; first += NMS_BLOCK) {
        others[threadIdx.x] = first + threadIdx.x < count ? keys[first + threadIdx.x] : 0;
        __syncthreads();
        for (int index = 0; index < NMS_BLOCK; index++) place += others[index] > key;
        __syncthreads();
    }
    if (pick >= count) return;
    order[place] = pick;
    const float* box = boxes + pick * BOX_WORDS;
    float* target = ranked + place * BOX_WORDS;
    const float shift = by_class ? box[4] * (largest[0] + 1.0f) : 0.0f;
    for (int corner = 0; corner < 4; corner++) target[corner] = by_class ? box[corner] + shift : box[corner];
    target[4] = (target[2] - target[0] + extra) * (target[3] - target[1] + extra);
}

// A thread has one box of the row's 64 and goes through the column's 64.
extern "C" __global__ void __launch_bounds__(WORD)
compare_picks(const float* ranked, float limit, float extra, const int* headers, u64* overlaps) {
    __shared__ float others[WORD][BOX_WORDS];
    const int image = blockIdx.y, count = headers[image * HEADER_WORDS + PICKED], words = (count + WORD - 1) / WORD;
    if (count > MOST) return;
    ranked += image * MOST * BOX_WORDS;
    overlaps += (long long)image * MOST * WORDS;
    for (int tile = blockIdx.x; tile < words * words; tile += gridDim.x) {
        const int row = tile / words, column = tile % words;
        if (column < row) continue;
        const int other = column * WORD + threadIdx.x, box = row * WORD + threadIdx.x;
        for (int word = 0; word < BOX_WORDS; word++)
            others[threadIdx.x][word] = other < count ? ranked[other * BOX_WORDS + word] : 0.0f;
        __syncthreads();
        if (box < count) {
            float own[BOX_WORDS];
            for (int word = 0; word < BOX_WORDS; word++) own[word] = ranked[box * BOX_WORDS + word];
            u64 bits = 0;
            for (int index = 0; index < WORD; index++) {
                if (column * WORD + index <= box || column * WORD + index >= count) continue;
                const float width = lesser_of(own[2], others[index][2]) - greater_of(own[0], others[index][0]) + extra;
                const float height = lesser_of(own[3], others[index][3]) - greater_of(own[1], others[index][1]) + extra;
                const float shared = greater_of(width, 0.0f) * greater_of(height, 0.0f);
                const float joined = own[4] + others[index][4] - shared;
                if (shared > limit * joined) bits |= 1ull << index;
            }
            overlaps[(long long)box * WORDS + column] = bits;
        }
        __syncthreads();
    }
}

// Word by word from the best: one thread decides among its 64 boxes, then all strike out what these suppress.
extern "C" __global__ void __launch_bounds__(KEEP_BLOCK)
keep_picks(const u64* overlaps, const int* order, const float* decoded, int most_boxes, int* result) {
    // Bits of each word's boxes: suppressed, kept; and how many are kept in the words before.
    __shared__ u64 gone[WORDS], stay[WORDS];
    __shared__ int before[WORDS], number;
    // What each box suppresses among those of its own word.
    __shared__ u64 among[MOST];
    const int image = blockIdx.y;
    int* header = result + image * HEADER_WORDS;
    const int count = header[PICKED], words = (count + WORD - 1) / WORD;
    if (count > MOST) return;
    overlaps += (long long)image * MOST * WORDS;
    order += image * MOST;
    decoded += image * MOST * DECODED_WORDS;
    if (threadIdx.x < WORDS) gone[threadIdx.x] = stay[threadIdx.x] = 0;
    if (threadIdx.x == 0) number = 0;
    for (int box = threadIdx.x; box < count; box += KEEP_BLOCK)
        among[box] = overlaps[(long long)box * WORDS + box / WORD];
    __syncthreads();
    for (int word = 0; word < words; word++) {
        const int first = word * WORD;
        if (threadIdx.x == 0) {
            int found = number;
            before[word] = found;
            u64 left = ~gone[word], own = 0;
            if (count - first < WORD) left &= (1ull << (count - first)) - 1;
            while (left != 0 && found < most_boxes) {
                const u64 best = left & (~left + 1);
                own |= best;
                left &= ~(best | among[first + __ffsll((long long)left) - 1]);
                found++;
            }
            stay[word] = own;
            number = found;
        }
        __syncthreads();
        if (number == most_boxes) break;
        const int later = threadIdx.x % WORDS, part = threadIdx.x / WORDS;
        if (part < PARTS && later > word && later < words) {
            u64 struck = 0;
            for (int index = part; index < WORD; index += PARTS)
                if (stay[word] >> index & 1) struck |= overlaps[(long long)(first + index) * WORDS + later];
            if (struck != 0) atomicOr(&gone[later], struck);
        }
        __syncthreads();
    }
    __syncthreads();
    if (threadIdx.x == 0) header[KEPT] = number;
    float* rows = (float*)(result + gridDim.y * HEADER_WORDS) + (long long)image * most_boxes * DECODED_WORDS;
    for (int index = threadIdx.x; index < count * DECODED_WORDS; index += KEEP_BLOCK) {
        const int box = index / DECODED_WORDS, column = index % DECODED_WORDS;
        const u64 own = stay[box / WORD], bit = 1ull << box % WORD;
        if ((own & bit) == 0) continue;
        const int place = before[box / WORD] + __popcll(own & (bit - 1));
        rows[place * DECODED_WORDS + column] = decoded[order[box] * DECODED_WORDS + column];
    }
}
