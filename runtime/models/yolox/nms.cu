// Suppression of the rows that select_rows picked, see nms.py and steps.py: decode, rank, compare, keep. A grid has a line
// of blocks for each image of the request; what follows is that of one image, and those of all lie one behind the other.
//
// cells      (ROWS, 3) float32: corner and stride of each row's cell [px]; null: rows are decoded. The same for all images
// scales     (4,) float32: pixels of the network's input per pixel of the image, across and down; the image's last pixel
// decoded    (MOST, DECODED_WORDS) float32: left, top, right, bottom, score, label; in pixels of the image
// keys       (MOST,) uint64: the bits of the score, then the row's number inverted, so that a larger key is a better box
// boxes      (MOST, BOX_WORDS) float32: left, top, right, bottom as they are compared, then the label
// order      (MOST,) int32: the picks, best first
// ranked     (MOST, BOX_WORDS) float32: boxes, best first, classes moved apart, with the area in the label's place
// overlaps   (MOST, WORDS) uint64: bit j of row i says that boxes i and j don't both stay; of words before the row's own
//            nothing
// result     the headers of all images, HEADER_WORDS int32 each; then what is left, best first, each of all images:
//            labels (most boxes,) int64, corners (most boxes, 4) float32, scores (most boxes,) float32
//
// More picks than MOST are left to the host: KEPT stays as it was.

#define NMS_BLOCK 256
#define KEEP_BLOCK 1024
#define BOX_WORDS 5
#define DECODED_WORDS 6
#define WORD 64
#define QUARTER (WORD / 4)
#define COMPARE_BLOCK (4 * WORD)
#define WORDS (MOST / WORD)
#define PARTS (KEEP_BLOCK / WORDS)
#define OF_PART ((WORD + PARTS - 1) / PARTS)

__device__ inline u64 better(float score, int row) {
    // The two zeros are equal.
    const u32 bits = __float_as_uint(score + 0.0f);
    const u32 ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return ((u64)ascending << 32) | (u32)~row;
}

// As NumPy's: not a number if either is none.
__device__ inline float greater_of(float a, float b) { return a >= b || isnan(a) ? a : b; }
__device__ inline float lesser_of(float a, float b) { return a <= b || isnan(a) ? a : b; }

// A coordinate within 0 and the last, as NumPy's clip has it.
__device__ inline float within(float value, float last) {
    value = isnan(value) || value > 0.0f ? value : 0.0f;
    return isnan(value) || value < last ? value : last;
}

// Corners in the pixels that boxes are compared in; where `whole`, whole pixels of the network's input, which end up as
// whole pixels within the image.
extern "C" __global__ void __launch_bounds__(NMS_BLOCK)
decode_picks(const int* picks, const float* values, const float* cells, int rows, int columns, const float* scales,
             int whole, const int* headers, u64* keys, float* decoded, float* boxes) {
    const int image = blockIdx.y, count = headers[image * HEADER_WORDS + PICKED];
    if (count > MOST) return;
    picks += (long long)image * rows;
    values += (long long)image * rows * columns;
    scales += 4 * image;
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
            if (whole) {
                high = truncf(high - low);
                low = truncf(low);
                high = low + high;
                box[axis] = low;
                box[2 + axis] = high;
            }
            low = low / scales[axis];
            high = high / scales[axis];
            if (whole) {
                low = within(low, scales[2 + axis]);
                high = truncf(within(high, scales[2 + axis]) - low);
                low = truncf(low);
                high = low + high;
            } else {
                box[axis] = low;
                box[2 + axis] = high;
            }
            own[axis] = low;
            own[2 + axis] = high;
        }
        box[4] = (float)label;
    }
}

// A pick's place is the number of better ones, which a warp counts. Every block looks for the largest corner by itself.
extern "C" __global__ void __launch_bounds__(NMS_BLOCK)
rank_picks(const u64* keys, const float* boxes, int by_class, float extra, const int* headers, int* order,
           float* ranked) {
    __shared__ float largest[NMS_BLOCK];
    const int image = blockIdx.y, count = headers[image * HEADER_WORDS + PICKED], warps = NMS_BLOCK / WARP;
    if (count > MOST || blockIdx.x * warps >= count) return;
    keys += image * MOST;
    boxes += image * MOST * BOX_WORDS;
    order += image * MOST;
    ranked += image * MOST * BOX_WORDS;
    if (by_class) {
        float own = __int_as_float(0xff800000);
        for (int index = threadIdx.x; index < count; index += NMS_BLOCK)
            for (int corner = 0; corner < 4; corner++) own = greater_of(own, boxes[index * BOX_WORDS + corner]);
        largest[threadIdx.x] = own;
        __syncthreads();
        for (int half = NMS_BLOCK / 2; half > 0; half /= 2) {
            if (threadIdx.x < half)
                largest[threadIdx.x] = greater_of(largest[threadIdx.x], largest[threadIdx.x + half]);
            __syncthreads();
        }
    }
    for (int pick = blockIdx.x * warps + threadIdx.x / WARP; pick < count; pick += gridDim.x * warps) {
        const u64 key = keys[pick];
        int place = 0;
        for (int index = threadIdx.x % WARP; index < count; index += WARP) place += keys[index] > key;
        place = warp_sum(place);
        if (threadIdx.x % WARP != 0) continue;
        order[place] = pick;
        const float* box = boxes + pick * BOX_WORDS;
        float* target = ranked + place * BOX_WORDS;
        const float shift = by_class ? box[4] * (largest[0] + 1.0f) : 0.0f;
        for (int corner = 0; corner < 4; corner++) target[corner] = by_class ? box[corner] + shift : box[corner];
        target[4] = (target[2] - target[0] + extra) * (target[3] - target[1] + extra);
    }
}

__device__ inline bool excludes(const float* better, const float* worse, float limit, float extra) {
    const float width = lesser_of(better[2], worse[2]) - greater_of(better[0], worse[0]) + extra;
    const float height = lesser_of(better[3], worse[3]) - greater_of(better[1], worse[1]) + extra;
    const float shared = greater_of(width, 0.0f) * greater_of(height, 0.0f);
    return shared > limit * (better[4] + worse[4] - shared);
}

// A thread has one box of the row's 64 and goes through a quarter of the column's 64.
extern "C" __global__ void __launch_bounds__(COMPARE_BLOCK)
compare_picks(const float* ranked, float limit, float extra, const int* headers, u64* overlaps) {
    __shared__ float others[WORD][BOX_WORDS];
    const int image = blockIdx.y, count = headers[image * HEADER_WORDS + PICKED], words = (count + WORD - 1) / WORD;
    if (count > MOST) return;
    ranked += image * MOST * BOX_WORDS;
    overlaps += (long long)image * MOST * WORDS;
    const int quarter = threadIdx.x / WORD;
    for (int tile = blockIdx.x; tile < words * words; tile += gridDim.x) {
        const int row = tile / words, column = tile % words;
        if (column < row) continue;
        const int box = row * WORD + threadIdx.x % WORD;
        for (int item = threadIdx.x; item < WORD * BOX_WORDS; item += COMPARE_BLOCK) {
            const int first = column * WORD * BOX_WORDS + item;
            others[item / BOX_WORDS][item % BOX_WORDS] = first < count * BOX_WORDS ? ranked[first] : 0.0f;
        }
        __syncthreads();
        if (box < count) {
            float own[BOX_WORDS];
            for (int word = 0; word < BOX_WORDS; word++) own[word] = ranked[box * BOX_WORDS + word];
            u32 bits = 0;
            for (int step = 0; step < QUARTER; step++) {
                const int index = quarter * QUARTER + step, other = column * WORD + index;
                if (other == box || other >= count) continue;
                const bool found = other < box ? excludes(others[index], own, limit, extra)
                                               : excludes(own, others[index], limit, extra);
                if (found) bits |= 1u << step;
            }
            // The lowest bits of a word come first in memory.
            ((unsigned short*)&overlaps[(long long)box * WORDS + column])[quarter] = (unsigned short)bits;
        }
        __syncthreads();
    }
}

// Which of a word's boxes stay, of the `open` ones that no box of an earlier word suppresses: by turns, all those that no
// box before them can suppress any more. A warp's lane has two boxes, and what excludes each of them in the word.
__device__ inline u64 staying(u64 open, u64 excluded_by, u64 second_excluded_by) {
    const int lane = threadIdx.x % WARP;
    const u64 before = (1ull << lane) - 1, second_before = (1ull << (lane + WARP)) - 1;
    u64 stay = 0;
    while (open != 0) {
        const bool is_open = open >> lane & 1, second_is_open = open >> (lane + WARP) & 1;
        const u64 found = __ballot_sync(ALL_LANES, is_open && !(excluded_by & before & open))
                          | (u64)__ballot_sync(ALL_LANES, second_is_open && !(second_excluded_by & second_before & open))
                                << WARP;
        stay |= found;
        open &= ~found;
        open &= ~(__ballot_sync(ALL_LANES, (excluded_by & found) != 0)
                  | (u64)__ballot_sync(ALL_LANES, (second_excluded_by & found) != 0) << WARP);
    }
    return stay;
}

// The first bits that are set, at most so many.
__device__ inline u64 first_bits(u64 bits, int most) {
    if (__popcll(bits) <= most) return bits;
    u64 first = 0;
    for (; most > 0; most--) {
        first |= bits & (~bits + 1);
        bits &= bits - 1;
    }
    return first;
}

// Word by word from the best: one warp decides among its 64 boxes, then all strike out what these suppress, of which they
// have fetched the bits meanwhile.
extern "C" __global__ void __launch_bounds__(KEEP_BLOCK)
keep_picks(const u64* overlaps, const int* order, const float* decoded, int most_boxes, int* result) {
    // Bits of each word's boxes: suppressed, kept; and how many are kept in the words before.
    __shared__ u64 gone[WORDS], stay[WORDS];
    __shared__ int before[WORDS], number;
    const int image = blockIdx.y;
    int* header = result + image * HEADER_WORDS;
    const int count = header[PICKED], words = (count + WORD - 1) / WORD;
    if (count > MOST) return;
    overlaps += (long long)image * MOST * WORDS;
    order += image * MOST;
    decoded += image * MOST * DECODED_WORDS;
    if (threadIdx.x < WORDS) gone[threadIdx.x] = stay[threadIdx.x] = 0;
    if (threadIdx.x == 0) number = 0;
    __syncthreads();
    const int later = threadIdx.x % WORDS, part = threadIdx.x / WORDS;
    for (int word = 0; word < words; word++) {
        const u64* rows = overlaps + (long long)word * WORD * WORDS;
        const bool strikes = later > word && later < words;
        u64 own[OF_PART];
        for (int item = 0; item < OF_PART; item++) {
            const int row = part + item * PARTS;
            own[item] = strikes && row < WORD ? rows[row * WORDS + later] : 0;
        }
        if (threadIdx.x < WARP) {
            const int left = count - word * WORD, found = number;
            const u64 open = ~gone[word] & (left < WORD ? (1ull << left) - 1 : ~0ull);
            const u64 kept = staying(open, rows[threadIdx.x * WORDS + word], rows[(threadIdx.x + WARP) * WORDS + word]);
            __syncwarp();
            if (threadIdx.x == 0) {
                before[word] = found;
                stay[word] = first_bits(kept, most_boxes - found);
                number = found + __popcll(stay[word]);
            }
        }
        __syncthreads();
        if (number == most_boxes) break;
        u64 struck = 0;
        for (int item = 0; item < OF_PART; item++)
            if (stay[word] >> (part + item * PARTS) & 1) struck |= own[item];
        if (struck != 0) atomicOr(&gone[later], struck);
        __syncthreads();
    }
    if (threadIdx.x == 0) header[KEPT] = number;
    const long long all = (long long)gridDim.y * most_boxes, first = (long long)image * most_boxes;
    long long* labels = (long long*)(result + gridDim.y * HEADER_WORDS);
    float *corners = (float*)(labels + all), *scores = corners + 4 * all;
    for (int box = threadIdx.x; box < count; box += KEEP_BLOCK) {
        const u64 own = stay[box / WORD], bit = 1ull << box % WORD;
        if ((own & bit) == 0) continue;
        const long long place = first + before[box / WORD] + __popcll(own & (bit - 1));
        const float* row = decoded + order[box] * DECODED_WORDS;
        for (int corner = 0; corner < 4; corner++) corners[4 * place + corner] = row[corner];
        scores[place] = row[4];
        labels[place] = (long long)row[5];
    }
}
