// The fused operations of ops/kernels/plain.py for tensors on a CPU whose channels lie innermost (N, H, W, C), as a library with a C
// interface that knows nothing of torch: plain pointers in, plain pointers out. Compiled once for each REAL (float, double).
//
// Every loop over images is split over threads statically, and what is summed over images is summed in the order of the images (batch
// statistics) or of the threads (weights' gradients): the same number of threads that run gives the same bits.
//
// Within an image the channels are cut into blocks of one vector: scratch planes are [block][pixel][lane], so that all that a kernel reads
// for one block lies close together. Channels that a last block lacks are zeros.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <type_traits>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#ifndef REAL
#define REAL float
#endif
#if defined(__AVX512F__)
#define WIDE 64
#elif defined(__AVX__)
#define WIDE 32
#else
#define WIDE 16
#endif
#define INLINE inline __attribute__((always_inline))

constexpr bool MANY = WIDE == 64;  // there are 32 registers of a vector, instead of 16

typedef REAL T;
typedef int64_t Int;

namespace {

template <int BYTES> struct Simd;
#define SIMD(B) template <> struct Simd<B> { typedef T V __attribute__((vector_size(B), may_alias)); };
SIMD(8) SIMD(16) SIMD(32) SIMD(64)

int thread_number() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

int team_size() {
#ifdef _OPENMP
    return omp_get_num_threads();
#else
    return 1;
#endif
}

// Images [first, last) of this thread. The team may be smaller than was asked for (OMP_THREAD_LIMIT, OMP_DYNAMIC, a region within another).
struct Share { Int first, last; };
Share own_share(Int images) {
    const Int threads = team_size(), number = thread_number();
    return {images * number / threads, images * (number + 1) / threads};
}

// Scratch that a thread keeps from call to call.
struct Scratch {
    char* memory = nullptr;
    size_t size = 0;
    ~Scratch() { std::free(memory); }
    void* at_least(size_t bytes) {
        if (bytes > size) {
            std::free(memory);
            size = (bytes + 4095) / 4096 * 4096;
            memory = static_cast<char*>(std::aligned_alloc(4096, size));
            if (memory == nullptr) { size = 0; std::abort(); }
        }
        return memory;
    }
};
thread_local Scratch scratch;

// Cuts one piece of scratch into arrays. First counts (memory null), then hands out.
struct Cutter {
    char* memory;
    size_t used = 0;
    template <class A> A* take(size_t count) {
        A* at = reinterpret_cast<A*>(memory + used);
        used += (count * sizeof(A) + 63) / 64 * 64;
        return at;
    }
};

Int blocks(Int channels, Int lanes) { return (channels + lanes - 1) / lanes; }

// Part of a vector of BYTES: its first `count` units of four bytes, the others zeros. Lane by lane it would take many times as long as a whole
// one, and channels are often no multiple of a vector's lanes (4, 36). MASKED: the sizes that the processor does it for.
#if defined(__AVX512F__) && defined(__AVX512VL__)
#define MASKED 64
#elif defined(__AVX2__)
#define MASKED 32
#else
#define MASKED 0
#endif

template <int BYTES> struct Masked;
#if MASKED == 64
#define MASKED_OF(BYTES, REGISTER, MASK, PREFIX)                                                                                   \
    template <> struct Masked<BYTES> {                                                                                            \
        typedef REGISTER R;                                                                                                       \
        static INLINE R load(const void* at, Int count) { return PREFIX##_maskz_loadu_epi32(MASK((1u << count) - 1u), at); }       \
        static INLINE void store(void* at, R v, Int count) { PREFIX##_mask_storeu_epi32(at, MASK((1u << count) - 1u), v); }        \
    };
MASKED_OF(16, __m128i, __mmask8, _mm) MASKED_OF(32, __m256i, __mmask8, _mm256) MASKED_OF(64, __m512i, __mmask16, _mm512)
#elif MASKED == 32
template <> struct Masked<16> {
    typedef __m128i R;
    static INLINE R mask(Int count) { return _mm_cmpgt_epi32(_mm_set1_epi32(int(count)), _mm_setr_epi32(0, 1, 2, 3)); }
    static INLINE R load(const void* at, Int count) { return _mm_maskload_epi32(static_cast<const int*>(at), mask(count)); }
    static INLINE void store(void* at, R v, Int count) { _mm_maskstore_epi32(static_cast<int*>(at), mask(count), v); }
};
template <> struct Masked<32> {
    typedef __m256i R;
    static INLINE R mask(Int count) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
    static INLINE R load(const void* at, Int count) { return _mm256_maskload_epi32(static_cast<const int*>(at), mask(count)); }
    static INLINE void store(void* at, R v, Int count) { _mm256_maskstore_epi32(static_cast<int*>(at), mask(count), v); }
};
#endif

template <class V> INLINE V load(const T* at, Int lanes) {
    constexpr Int full = sizeof(V) / sizeof(T);
    V v = {};
    if (lanes == full) { std::memcpy(&v, at, sizeof(V)); return v; }  // tensors need not be aligned, scratch is
    if constexpr (sizeof(V) >= 16 && sizeof(V) <= MASKED) {
        const auto part = Masked<sizeof(V)>::load(at, lanes * Int(sizeof(T) / 4));
        std::memcpy(&v, &part, sizeof(V));
    } else {
        for (Int l = 0; l < lanes; l++) v[l] = at[l];
    }
    return v;
}

template <class V> INLINE void store(T* at, V v, Int lanes) {
    constexpr Int full = sizeof(V) / sizeof(T);
    if (lanes == full) { std::memcpy(at, &v, sizeof(V)); return; }
    if constexpr (sizeof(V) >= 16 && sizeof(V) <= MASKED) {
        typename Masked<sizeof(V)>::R part;
        std::memcpy(&part, &v, sizeof(V));
        Masked<sizeof(V)>::store(at, part, lanes * Int(sizeof(T) / 4));
    } else {
        for (Int l = 0; l < lanes; l++) at[l] = v[l];
    }
}

// Runs a loop with the number of lanes: a whole vector's as a constant, so that nothing asks for it at each pixel.
template <class V, class F> INLINE void with_lanes(Int lanes, F run) {
    constexpr Int L = sizeof(V) / sizeof(T);
    if (lanes == L) run(std::integral_constant<Int, L>{});
    else run(lanes);
}

// What is read or written next is asked for beforehand: tensors of a whole batch do not stay in the caches until they are needed, and processors
// fetch ahead of a loop only within a page, and of writes hardly at all.
constexpr Int LINE = 64;   // bytes
constexpr Int AHEAD = 24;  // pixels

INLINE void read_soon(const T* at) { __builtin_prefetch(at, 0); }
INLINE void write_soon(const T* at) { __builtin_prefetch(at, 1); }
INLINE void write_soon(const T* at, Int count) {
    for (Int i = 0; i < count; i += LINE / Int(sizeof(T))) write_soon(at + i);
}

// What the next piece of work reads, asked for bit by bit while this one is computed: few lines can be on their way at once, and what is
// computed meanwhile waits for none of them.
class Soon {
    struct Region { const T* at; Int runs, numbers, apart; };  // numbers that stand together, so many times
    Region regions[3] = {};
    Int number = 0, lines = 0, each = 0, region = 0, run = 0, done = 0;
    static constexpr Int UNIT = LINE / Int(sizeof(T));

    void add(const Region& r) {
        regions[number++] = r;
        lines += r.runs * ((r.numbers + UNIT - 1) / UNIT);
    }

  public:
    // Channels of all pixels, which are `stride` apart.
    void reads(const T* at, Int pixels, Int channels, Int stride) {
        const bool close = stride < channels + UNIT;
        add({at, close ? 1 : pixels, close ? pixels * stride : channels, stride});
    }
    // But for what another piece of work reads.
    void without(const Soon& other) {
        Soon rest;
        for (Int i = 0; i < number; i++) {
            bool there = false;
            for (Int k = 0; k < other.number; k++) there |= other.regions[k].at == regions[i].at;
            if (!there) rest.add(regions[i]);
        }
        *this = rest;
    }
    // It is asked so many times.
    void times(Int count) { each = (lines + count - 1) / count; }
    INLINE void ask() {
        for (Int left = each; left > 0 && region < number;) {
            const auto& r = regions[region];
            const T* at = r.at + run * r.apart;
            for (; done < r.numbers && left > 0; done += UNIT, left--) read_soon(at + done);
            if (done < r.numbers) break;
            done = 0;
            if (++run == r.runs) region++, run = 0;
        }
    }
};

// Keeps a compiler from reading a number from memory again for each product that it is part of.
template <class V> INLINE void in_register(V& v) {
#if defined(__AVX512F__)
    asm("" : "+v"(v));
#endif
}

// Zero stays zero, and what is not a number stays so.
template <class V> INLINE V relu(V x) { const V zero = {}; return x <= zero ? zero : x; }
template <class V> INLINE V where_positive(V x, V y) { const V zero = {}; return x <= zero ? zero : y; }


// ---- depthwise convolution on a padded plane of one block

// ROWS times `P` outputs beside one another, whose rows are `down` apart in the plane and `apart` in `out`. K: the kernel's size; 0: `size` says.
// COLUMN, STEP: 0 where `column` and `step` say. Where all are known what several taps read is loaded once: there are as many loads in a cycle
// as products.
template <int K, int P, int ROWS, int COLUMN, int STEP, class V>
INLINE void depthwise_block(const V* plane, const V* weight, Int size, Int row, Int column, Int step, Int down, V* out, Int apart) {
    V sum[ROWS][P] = {};
    const int k = K ? K : int(size);
    for (int i = 0; i < k; i++) {
        if constexpr (K != 0 && COLUMN != 0 && STEP != 0) {
            V w[K ? K : 1];
#pragma GCC unroll 7
            for (int j = 0; j < K; j++) w[j] = weight[i * K + j];
#pragma GCC unroll 2
            for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 64
                for (int q = 0; q <= (P - 1) * STEP + (K - 1) * COLUMN; q++) {
                    const V x = plane[i * row + r * down + q];
#pragma GCC unroll 7
                    for (int j = 0; j < K; j++) {
                        const int from = q - j * COLUMN;
                        if (from >= 0 && from % STEP == 0 && from / STEP < P) sum[r][from / STEP] += w[j] * x;
                    }
                }
        } else {
#pragma GCC unroll 7
            for (int j = 0; j < k; j++) {
                const V w = weight[i * k + j];
                const V* at = plane + i * row + j * column;
#pragma GCC unroll 2
                for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
                    for (int p = 0; p < P; p++) sum[r][p] += w * at[r * down + p * step];
            }
        }
    }
#pragma GCC unroll 2
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
        for (int p = 0; p < P; p++) out[r * apart + p] = sum[r][p];
}

// `rows` of `count` outputs. Sixteen at a time where there are registers for them, from two rows where one is too short.
template <int K, int COLUMN, int STEP, class V>
void depthwise_area_of(const V* plane, const V* weight, Int size, Int row, Int column, Int step, Int down, Int rows, V* out, Int apart,
                       Int count) {
    const Int s = STEP ? STEP : step;
    for (Int r = 0; r < rows;) {
        const Int here = MANY && count % 16 >= 8 && r + 1 < rows ? 2 : 1;
        for (Int k = 0; k < here; k++) {
            const V* from = plane + (r + k) * down;
            V* to = out + (r + k) * apart;
            Int p = 0;
#define DEPTHWISE(P, ROWS) depthwise_block<K, P, ROWS, COLUMN, STEP>(from + p * s, weight, size, row, column, s, down, to + p, apart)
            if (MANY) for (; p + 16 <= count; p += 16) DEPTHWISE(16, 1);
            if (here == 2 && p + 8 <= count) {
                if (k == 0) DEPTHWISE(8, 2);  // and those of the next row
                p += 8;
            }
            for (; p + 8 <= count; p += 8) DEPTHWISE(8, 1);
            for (; p + 4 <= count; p += 4) DEPTHWISE(4, 1);
            for (; p < count; p++) DEPTHWISE(1, 1);
#undef DEPTHWISE
        }
        r += here;
    }
}

template <int COLUMN, int STEP, class V>
void depthwise_area_step(const V* plane, const V* weight, Int size, Int row, Int column, Int step, Int down, Int rows, V* out, Int apart,
                         Int count) {
    switch (size) {
        case 3: depthwise_area_of<3, COLUMN, STEP>(plane, weight, size, row, column, step, down, rows, out, apart, count); break;
        case 5: depthwise_area_of<5, COLUMN, STEP>(plane, weight, size, row, column, step, down, rows, out, apart, count); break;
        default: depthwise_area_of<0, 0, 0>(plane, weight, size, row, column, step, down, rows, out, apart, count);
    }
}

// Some rows of outputs. plane: at the first row's first tap. row, column: between taps; step: between outputs, down: between rows of outputs, all
// in pixels of the plane. apart: between rows of `out`.
template <class V>
void depthwise_area(const V* plane, const V* weight, Int size, Int row, Int column, Int step, Int down, Int rows, V* out, Int apart, Int count) {
    if (step == 1 && column == 1) depthwise_area_step<1, 1>(plane, weight, size, row, column, step, down, rows, out, apart, count);
    else if (step == 1 && column == 2) depthwise_area_step<2, 1>(plane, weight, size, row, column, step, down, rows, out, apart, count);
    else if (step == 2 && column == 1) depthwise_area_step<1, 2>(plane, weight, size, row, column, step, down, rows, out, apart, count);
    else if (step == 2 && column == 2) depthwise_area_step<2, 2>(plane, weight, size, row, column, step, down, rows, out, apart, count);
    else depthwise_area_of<0, 0, 0>(plane, weight, size, row, column, step, down, rows, out, apart, count);
}

// ---- matrix product: out[o][p] = sum over c of in[c][p] * weight[o][c]

// B blocks of outputs (weights `weights` vectors apart, outputs `outs`) of P pixels: a number that is spread over a vector serves them all.
template <int P, int B, class V>
INLINE void pointwise_block(const V* in, Int plane, const V* weight, Int weights, Int channels, V* out, Int outs) {
    constexpr Int L = sizeof(V) / sizeof(T);
    V sum[B][P] = {};
    for (Int c = 0; c < channels; c += L, in += plane) {
        const Int lanes = std::min(L, channels - c);
        const T* at = reinterpret_cast<const T*>(in);
        const auto step = [&](Int l) __attribute__((always_inline)) {
            V w[B];
#pragma GCC unroll 2
            for (int b = 0; b < B; b++) w[b] = weight[b * weights + c + l];
#pragma GCC unroll 16
            for (int p = 0; p < P; p++) {
                V x = at[p * L + l] - V{};
                if constexpr (B > 1) in_register(x);
#pragma GCC unroll 2
                for (int b = 0; b < B; b++) sum[b][p] += w[b] * x;
            }
        };
        if (lanes == L) {
#pragma GCC unroll 16
            for (Int l = 0; l < L; l++) step(l);
        } else {
            for (Int l = 0; l < lanes; l++) step(l);
        }
    }
#pragma GCC unroll 2
    for (int b = 0; b < B; b++)
#pragma GCC unroll 16
        for (int p = 0; p < P; p++) out[b * outs + p] = sum[b][p];
}

// in: [block][plane pixels]; weight: of each of `number` blocks of outputs `channels` vectors; out: of each `count` vectors, `outs` apart.
template <class V>
void pointwise_area(const V* in, Int plane, const V* weight, Int channels, Int number, V* out, Int outs, Int count) {
    Int b = 0;
    if (MANY)
        for (; b + 2 <= number && count >= 4; b += 2) {
            const V* w = weight + b * channels;
            V* to = out + b * outs;
            Int p = 0;
            for (; p + 8 <= count; p += 8) pointwise_block<8, 2>(in + p, plane, w, channels, channels, to + p, outs);
            for (; p + 4 <= count; p += 4) pointwise_block<4, 2>(in + p, plane, w, channels, channels, to + p, outs);
            for (; p < count; p++) pointwise_block<1, 2>(in + p, plane, w, channels, channels, to + p, outs);
        }
    for (; b < number; b++) {
        const V* w = weight + b * channels;
        V* to = out + b * outs;
        Int p = 0;
        if (MANY) for (; p + 16 <= count; p += 16) pointwise_block<16, 1>(in + p, plane, w, 0, channels, to + p, 0);
        for (; p + 8 <= count; p += 8) pointwise_block<8, 1>(in + p, plane, w, 0, channels, to + p, 0);
        for (; p + 4 <= count; p += 4) pointwise_block<4, 1>(in + p, plane, w, 0, channels, to + p, 0);
        for (; p < count; p++) pointwise_block<1, 1>(in + p, plane, w, 0, channels, to + p, 0);
    }
}

// ---- dense convolution on padded planes: out[o][p] = sum over taps and c of in[c][p + tap] * weight[o][tap][c]

// weight: [tap][input, whole blocks] of one block of outputs. row, column: between taps.
template <int P, class V>
INLINE void dense_block(const V* in, Int plane, const V* weight, Int channels, Int size, Int row, Int column, V* out) {
    constexpr Int L = sizeof(V) / sizeof(T);
    const Int bi = blocks(channels, L);
    V sum[P] = {};
    for (Int i = 0; i < size; i++)
        for (Int j = 0; j < size; j++)
            for (Int b = 0; b < bi; b++) {
                const Int lanes = std::min(L, channels - b * L);
                const T* at = reinterpret_cast<const T*>(in + b * plane + i * row + j * column);
                const V* w = weight + ((i * size + j) * bi + b) * L;
                if (lanes == L) {
#pragma GCC unroll 16
                    for (Int l = 0; l < L; l++)
#pragma GCC unroll 8
                        for (int p = 0; p < P; p++) sum[p] += w[l] * at[p * L + l];
                } else {
                    for (Int l = 0; l < lanes; l++)
#pragma GCC unroll 8
                        for (int p = 0; p < P; p++) sum[p] += w[l] * at[p * L + l];
                }
            }
#pragma GCC unroll 8
    for (int p = 0; p < P; p++) out[p] = sum[p];
}

// One row of outputs; in: at the row's first tap. The weight of a tap holds whole blocks of inputs.
template <class V>
void dense_row(const V* in, Int plane, const V* weight, Int channels, Int size, Int row, Int column, V* out, Int count) {
    Int p = 0;
    for (; p + 8 <= count; p += 8) dense_block<8>(in + p, plane, weight, channels, size, row, column, out + p);
    for (; p + 4 <= count; p += 4) dense_block<4>(in + p, plane, weight, channels, size, row, column, out + p);
    for (; p < count; p++) dense_block<1>(in + p, plane, weight, channels, size, row, column, out + p);
}

// ---- sums over an image that keep their precision

// Adds sum and sum of squares of `count` pixels, each less `centre`.
template <class V> INLINE void add_moments(const T* x, Int stride, Int count, Int lanes, V centre, V& sum, V& square) {
    V s[4] = {}, q[4] = {};
    Int p = 0;
    for (; p + 4 <= count; p += 4)
#pragma GCC unroll 4
        for (int u = 0; u < 4; u++) {
            const V v = load<V>(x + (p + u) * stride, lanes) - centre;
            s[u] += v, q[u] += v * v;
        }
    for (; p < count; p++) {
        const V v = load<V>(x + p * stride, lanes) - centre;
        s[0] += v, q[0] += v * v;
    }
    sum += (s[0] + s[1]) + (s[2] + s[3]), square += (q[0] + q[1]) + (q[2] + q[3]);
}

// What becomes of moments: 1 / sqrt(variance + eps), and running averages (null for none) that follow mean and unbiased variance. rule null:
// the variance itself.
struct Follow { T *mean, *variance; const double* rule; };

// of_images: of each image mean and sum of squared distances, merged in the order of the images (Chan et al.). spread: 1 / sqrt(...), or the
// variance.
void merge_moments(const double* of_images, Int images, Int channels, Int pixels, const Follow& follow, T* mean, T* spread) {
    for (Int c = 0; c < channels; c++) {
        double m = 0, distance = 0;
        for (Int n = 0; n < images; n++) {
            const double own = of_images[(2 * n) * channels + c], d = own - m;
            m += d / double(n + 1);
            distance += of_images[(2 * n + 1) * channels + c] + d * d * double(pixels) * double(n) / double(n + 1);
        }
        const double count = double(images) * double(pixels), variance = distance / count;
        mean[c] = T(m), spread[c] = T(follow.rule ? 1 / std::sqrt(variance + follow.rule[0]) : variance);
        if (follow.mean) {
            follow.mean[c] += T(follow.rule[1] * (m - double(follow.mean[c])));
            follow.variance[c] += T(follow.rule[1] * (distance / (count - 1) - double(follow.variance[c])));
        }
    }
}

// Adds float sums into double ones.
template <class V> INLINE void flush(V v, double* to, Int lanes) {
    constexpr Int L = sizeof(V) / sizeof(T);
    if (lanes == L) for (Int l = 0; l < L; l++) to[l] += double(v[l]);
    else for (Int l = 0; l < lanes; l++) to[l] += double(v[l]);
}

// Moments of one image of one block, taken some rows at a time. centre: near the mean.
template <class V> struct Moments {
    static constexpr Int L = sizeof(V) / sizeof(T), PIECE = 64;  // pixels that are summed up in single precision
    V centre = {};
    double sum[L] = {}, square[L] = {};

    void add(const T* x, Int stride, Int pixels, Int lanes, bool first) {
        with_lanes<V>(lanes, [&](auto count) __attribute__((always_inline)) {
            if (first) {
                const Int some = std::min<Int>(pixels, 16);
                V zero = {}, of_some = {}, unused = {};
                add_moments(x, stride, some, count, zero, of_some, unused);
                centre = of_some / T(some);
            }
            for (Int p = 0; p < pixels; p += PIECE) {
                V s = {}, q = {};
                add_moments(x + p * stride, stride, std::min(PIECE, pixels - p), count, centre, s, q);
                flush(s, sum, L), flush(q, square, L);  // zeros beyond the lanes
            }
        });
    }

    void end(Int pixels, Int lanes, double* mean, double* distance) const {
        for (Int l = 0; l < lanes; l++) {
            mean[l] = double(centre[l]) + sum[l] / double(pixels);
            distance[l] = std::max(0.0, square[l] - sum[l] * sum[l] / double(pixels));
        }
    }
};

// ---- one stage: pointwise(depthwise(relu((x - mean) * scale + shift))), or a dense convolution of the same

struct Shape {
    // size: of the depthwise convolution; 0: there is none. HALVES: neither, and outputs read two pixels, (2i, 2j) and (2i + 1, 2j + 1),
    // whose channels stand one after the other in the pointwise weight. Below: there is no depthwise convolution, and the other one is of size
    // -size, odd; its weight is (out, size, size, in) in memory, and its stride 1.
    // margin: by how much planes are padded more than it needs, because others read them too.
    Int images, height, width, in, out, size, stride, dilation, margin = 0;
    static constexpr Int HALVES = -2;
    Int dense() const { return size < HALVES ? -size : 0; }
    Int pad() const { return size == HALVES ? 1 : size ? dilation * ((size > 0 ? size : -size) - 1) / 2 : 0; }
    Int taps() const { return size > 0 ? size * size : 0; }
    Int border() const { return pad() + margin; }
    // Of the gradient of the depthwise outputs: what taps that lie on an input may reach beyond it.
    Int gradient_border() const { return bare() ? 0 : stride == 1 ? border() : size > 0 ? pad() / stride + 1 : 0; }
    Int plane_width() const { return width + 2 * border(); }
    Int plane() const { return (height + 2 * border()) * plane_width(); }
    Int first_tap() const { return margin * plane_width() + margin; }
    Int interior() const { return border() * plane_width() + border(); }
    // The product alone needs no planes: it reads some rows at a time.
    bool bare() const { return size == 0 && stride == 1; }
    Int groups() const { return size == HALVES ? 2 : dense() ? size * size : 1; }  // pixels that an output is a product of
    Int out_height() const { return (height - 1) / stride + 1; }
    Int out_width() const { return (width - 1) / stride + 1; }
    Int pixels() const { return height * width; }
    Int out_pixels() const { return out_height() * out_width(); }
};

// ---- dense 3x3 convolutions by tiles (Winograd's minimal filtering; Lavin & Gray 2016, Sec. 4.1): 2xM outputs of 4x(M + 2) inputs by as many
// products as there are inputs, A^T [(G w G^T) * (B^T d B)] A. Down the matrices are those of F(2, 3), across of F(M, 3), M 2 or 4. Channels
// are contracted at each of the places of a tile: a matrix product over tiles. Where the last tile of a side is not whole, what it reads
// beside the plane are zeros, and what it computes there is dropped.

template <int M> struct Across;

// F(2, 3) at the points 0, 1, -1 and infinity.
template <> struct Across<2> {
    // B^T of a line of a tile, G of one of the weights; A^T of one of products; A of one of outputs' gradients, G^T of one of sums.
    template <class V> static INLINE void tile(const V* d, V* to) {
        to[0] = d[0] - d[2], to[1] = d[1] + d[2], to[2] = d[2] - d[1], to[3] = d[1] - d[3];
    }
    template <class V> static INLINE void weights(const V* w, V* to) {
        const V even = (w[0] + w[2]) * T(0.5), odd = w[1] * T(0.5);
        to[0] = w[0], to[1] = even + odd, to[2] = even - odd, to[3] = w[2];
    }
    template <class V> static INLINE void outputs(const V* m, V* to) { to[0] = m[0] + m[1] + m[2], to[1] = m[1] - m[2] - m[3]; }
    template <class V> static INLINE void spread(const V* g, V* to) { to[0] = g[0], to[1] = g[0] + g[1], to[2] = g[0] - g[1], to[3] = -g[1]; }
    template <class V> static INLINE void gathered(const V* m, V* to) {
        const V even = (m[1] + m[2]) * T(0.5);
        to[0] = m[0] + even, to[1] = (m[1] - m[2]) * T(0.5), to[2] = even + m[3];
    }
};

// F(4, 3) at the points 0, P, -P, Q, -Q and infinity. At 1 and 2, the usual ones, errors of single precision are a third larger than at these,
// the best of the short fractions that were tried; all numbers but those of G are exact.
template <> struct Across<4> {
    static constexpr double P = 0.625, Q = 1.5, PP = P * P, QQ = Q * Q, PQ = PP * QQ;
    static constexpr double P_G = 0.5 / (PP * (PP - QQ)), Q_G = 0.5 / (QQ * (QQ - PP));
    template <class V> static INLINE void tile(const V* d, V* to) {
        const V p = d[4] - T(QQ) * d[2], p_odd = T(P) * d[3] - T(P * QQ) * d[1];
        const V q = d[4] - T(PP) * d[2], q_odd = T(Q) * d[3] - T(Q * PP) * d[1];
        to[0] = T(PQ) * d[0] + (d[4] - T(PP + QQ) * d[2]);
        to[1] = p + p_odd, to[2] = p - p_odd, to[3] = q + q_odd, to[4] = q - q_odd;
        to[5] = T(PQ) * d[1] + (d[5] - T(PP + QQ) * d[3]);
    }
    template <class V> static INLINE void weights(const V* w, V* to) {
        const V p = T(P_G) * w[0] + T(P_G * PP) * w[2], p_odd = T(P_G * P) * w[1];
        const V q = T(Q_G) * w[0] + T(Q_G * QQ) * w[2], q_odd = T(Q_G * Q) * w[1];
        to[0] = T(1 / PQ) * w[0], to[1] = p + p_odd, to[2] = p - p_odd, to[3] = q + q_odd, to[4] = q - q_odd, to[5] = w[2];
    }
    template <class V> static INLINE void outputs(const V* m, V* to) {
        const V p = m[1] + m[2], p_odd = m[1] - m[2], q = m[3] + m[4], q_odd = m[3] - m[4];
        to[0] = m[0] + p + q, to[1] = T(P) * p_odd + T(Q) * q_odd, to[2] = T(PP) * p + T(QQ) * q;
        to[3] = m[5] + T(PP * P) * p_odd + T(QQ * Q) * q_odd;
    }
    template <class V> static INLINE void spread(const V* g, V* to) {
        const V p = g[0] + T(PP) * g[2], p_odd = T(P) * g[1] + T(P * PP) * g[3];
        const V q = g[0] + T(QQ) * g[2], q_odd = T(Q) * g[1] + T(Q * QQ) * g[3];
        to[0] = g[0], to[1] = p + p_odd, to[2] = p - p_odd, to[3] = q + q_odd, to[4] = q - q_odd, to[5] = g[3];
    }
    template <class V> static INLINE void gathered(const V* m, V* to) {
        const V p = T(P_G) * (m[1] + m[2]), p_odd = T(P_G) * (m[1] - m[2]), q = T(Q_G) * (m[3] + m[4]), q_odd = T(Q_G) * (m[3] - m[4]);
        to[0] = T(1 / PQ) * m[0] + p + q, to[1] = T(P) * p_odd + T(Q) * q_odd, to[2] = T(PP) * p + T(QQ) * q + m[5];
    }
};

typedef Across<2> Down;

struct Tiling {
    Int wide, down, across, rows;  // wide: M; rows: of tiles, at a time
    // 24 products for 8 outputs in place of 16 for 4, by larger errors: of fewer channels, more than twice those of the direct way.
    explicit Tiling(const Shape& s, Int at_once = 16) : down((s.height + 1) / 2) {
        const Int narrow = (s.width + 1) / 2, half = (s.width + 3) / 4;
        wide = 6 * half < 4 * narrow && half * down >= 8 && std::min(s.in, s.out) >= 8 ? 4 : 2;
        across = wide == 4 ? half : narrow, rows = std::max<Int>(1, std::min(down, at_once / across));
    }
    Int places() const { return 4 * (wide + 2); }
    Int chunks() const { return (down + rows - 1) / rows; }
    // Vectors between the places of `tiles` of all blocks: an odd number, for what is written to all places at once must not lie at equal
    // distances to a page, where a cache holds few of them.
    static Int apart(Int blocks, Int tiles) { return blocks * tiles | 1; }
    template <class V> Int scratch(const Shape& s) const {  // in vectors
        constexpr Int L = sizeof(V) / sizeof(T);
        return places() * (apart(blocks(s.in, L), rows * across) + apart(blocks(s.out, L), rows * across));
    }
};

// Whether it is faster than the direct way: there are fewer products, and channels enough to outweigh what is added before and after them.
bool by_tiles(const Shape& s) {
    const Tiling cut(s);
    return s.dense() == 3 && s.dilation == 1 && std::min(s.in, s.out) >= 4 && cut.places() * cut.down * cut.across < 9 * s.height * s.width;
}

// The sums of the weights' gradients at all places, in vectors; 0 where these go the direct way: the sums are read and written for each image,
// and of many channels they do not stay in the caches.
template <class V> Int sums_by_tiles(const Shape& s) {
    const Int count = Tiling(s).places() * s.out * blocks(s.in, sizeof(V) / sizeof(T));
    return by_tiles(s) && count * Int(sizeof(V)) <= 8 << 20 ? count : 0;
}

// weight: [block][tap][channel, whole blocks], as `pack` has it; to: [place][block][channel].
template <int M, class V> void weights_of_tiles(const V* weight, Int number, Int channels, V* to) {
    constexpr Int L = sizeof(V) / sizeof(T), N = M + 2;
    const Int padded = blocks(channels, L) * L;
    for (Int b = 0; b < number; b++)
        for (Int c = 0; c < channels; c++) {
            const V* w = weight + b * 9 * padded + c;
            V half[4][3], whole[N];
            for (int j = 0; j < 3; j++) {
                const V line[3] = {w[j * padded], w[(3 + j) * padded], w[(6 + j) * padded]};
                Down::weights(line, whole);
                for (int i = 0; i < 4; i++) half[i][j] = whole[i];
            }
            for (int i = 0; i < 4; i++) {
                Across<M>::weights(half[i], whole);
                for (int j = 0; j < N; j++) to[(i * N + j) * Tiling::apart(number, channels) + b * channels + c] = whole[j];
            }
        }
}

template <class V> void weights_by_tiles(const Shape& s, const V* weight, Int number, Int channels, V* to) {
    if (Tiling(s).wide == 4) weights_of_tiles<4>(weight, number, channels, to);
    else weights_of_tiles<2>(weight, number, channels, to);
}

// The tiles that stand beside one another, of one block. at: the corner of the first; row: between lines of the plane; high: whether the tiles'
// fourth line is on the plane. to: `apart` between places.
template <int M, class V> void tiles_of_row(const V* at, Int row, Int width, bool high, V* to, Int apart) {
    constexpr int N = M + 2;
    const V *line[4] = {at, at + row, at + 2 * row, at + (high ? 3 : 2) * row};
    V half[4][N];
    const auto column = [&](Int c, int j) __attribute__((always_inline)) {
        const V d[4] = {line[0][c], line[1][c], line[2][c], line[3][c]};
        V of[4];
        Down::tile(d, of);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) half[i][j] = of[i];
    };
    const auto tile = [&](Int t, auto whole_one) __attribute__((always_inline)) {
#pragma GCC unroll 4
        for (int j = 2; j < N; j++) column(whole_one ? M * t + j : std::min(M * t + j, width + 1), j);  // the plane's last column are zeros
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            V whole[N];
            Across<M>::tile(half[i], whole);
#pragma GCC unroll 6
            for (int j = 0; j < N; j++) to[(i * N + j) * apart + t] = whole[j];
            half[i][0] = half[i][M], half[i][1] = half[i][M + 1];
        }
    };
    column(0, 0), column(1, 1);
    Int t = 0;
    for (; t < width / M; t++) tile(t, std::true_type{});
    if (width % M) tile(t, std::false_type{});
}

// Rows [first, first + here) of tiles of all blocks, to [place][block][tile].
template <int M, class V> void tiles_of_planes(const Shape& s, const Tiling& cut, const V* planes, Int channels, Int first, Int here, V* to) {
    constexpr Int L = sizeof(V) / sizeof(T);
    const Int number = blocks(channels, L), count = here * cut.across;
    for (Int b = 0; b < number; b++)
        for (Int r = 0; r < here; r++)
            tiles_of_row<M>(planes + b * s.plane() + s.first_tap() + 2 * (first + r) * s.plane_width(), s.plane_width(), s.width,
                            2 * (first + r) + 1 < s.height, to + b * count + r * cut.across, cut.apart(number, count));
}

// Where outputs go: `last` lanes in the last block, pixels `stride` apart.
struct Outputs { T* at; Int block, stride, last; };

// One row of tiles of one block. from: `apart` between places.
template <int M, class V> void outputs_of_row(const V* from, Int apart, Int width, bool high, T* to, Int stride, Int lanes) {
    constexpr int N = M + 2;
    with_lanes<V>(lanes, [&](auto count) __attribute__((always_inline)) {
        const auto tile = [&](Int t, int columns) __attribute__((always_inline)) {
            V half[2][N], line[M];
#pragma GCC unroll 6
            for (int j = 0; j < N; j++) {
                const V m[4] = {from[j * apart + t], from[(N + j) * apart + t], from[(2 * N + j) * apart + t], from[(3 * N + j) * apart + t]};
                V of[2];
                Down::outputs(m, of);
                half[0][j] = of[0], half[1][j] = of[1];
            }
#pragma GCC unroll 2
            for (int i = 0; i < 2; i++) {
                if (i == 1 && !high) break;
                Across<M>::outputs(half[i], line);
#pragma GCC unroll 4
                for (int j = 0; j < M; j++)
                    if (j < columns) store<V>(to + (i * width + M * t + j) * stride, line[j], count);
            }
        };
        Int t = 0;
        for (; t < width / M; t++) tile(t, M);
        if (width % M) tile(t, int(width % M));
    });
}

// One image. weight: of `weights_by_tiles`, `number` blocks of outputs; between: scratch.
template <int M, class V>
void convolve_tiles(const Shape& s, const Tiling& cut, const V* planes, Int channels, const V* weight, Int number, V* between,
                    const Outputs& out, Soon& soon) {
    constexpr Int L = sizeof(V) / sizeof(T), places = 4 * (M + 2);
    const Int bi = blocks(channels, L);
    for (Int first = 0; first < cut.down; first += cut.rows) {
        const Int here = std::min(cut.rows, cut.down - first), count = here * cut.across;
        const Int in = cut.apart(bi, count), made = cut.apart(number, count);
        V *tiles = between, *products = tiles + places * in;
        tiles_of_planes<M>(s, cut, planes, channels, first, here, tiles);
        for (Int place = 0; place < places; place++) {
            soon.ask();
            pointwise_area(tiles + place * in, count, weight + place * cut.apart(number, channels), channels, number, products + place * made, count,
                           count);
        }
        for (Int b = 0; b < number; b++)
            for (Int r = 0; r < here; r++)
                outputs_of_row<M>(products + b * count + r * cut.across, made, s.width, 2 * (first + r) + 1 < s.height,
                                  out.at + b * out.block + 2 * (first + r) * s.width * out.stride, out.stride, b + 1 < number ? L : out.last);
    }
}

template <class V>
void convolve_by_tiles(const Shape& s, const V* planes, Int channels, const V* weight, Int number, V* between, const Outputs& out,
                       Soon& soon) {
    const Tiling cut(s);
    if (cut.wide == 4) convolve_tiles<4>(s, cut, planes, channels, weight, number, between, out, soon);
    else convolve_tiles<2>(s, cut, planes, channels, weight, number, between, out, soon);
}

struct Affine { const T *mean, *rstd, *weight, *bias; };  // mean null: the identity; weight, bias null: ones, zeros

// One block of it.
template <class V> struct Normed {
    V mean = {}, scale = {}, shift = {};
    Normed(const Affine& n, Int at, Int lanes) {
        if (n.mean == nullptr) return;
        mean = load<V>(n.mean + at, lanes), scale = load<V>(n.rstd + at, lanes);
        if (n.weight) scale *= load<V>(n.weight + at, lanes);
        if (n.bias) shift = load<V>(n.bias + at, lanes);
    }
};

template <class V> struct Packed {
    // weights in the orders that kernels read them
    V *taps, *flipped;            // depthwise: [block][tap]
    V *product, *transposed;      // pointwise: [block of outputs][input], [block of inputs][output]
    V* tiles;                     // the one that is wanted, where a dense convolution goes by tiles
};

// How many inputs the pointwise product has: whole blocks where there are several groups.
template <class V> Int contracted(const Shape& s) {
    constexpr Int L = sizeof(V) / sizeof(T);
    return s.groups() == 1 ? s.in : s.groups() * blocks(s.in, L) * L;
}

template <class V> void pack(const Shape& s, const T* depthwise, const T* pointwise, Packed<V>& w, bool backward) {
    constexpr Int L = sizeof(V) / sizeof(T);
    const Int bi = blocks(s.in, L), bo = blocks(s.out, L), taps = s.taps(), count = contracted<V>(s);
    T *t = reinterpret_cast<T*>(w.taps), *f = reinterpret_cast<T*>(w.flipped);
    for (Int c = 0; c < bi * L; c++)
        for (Int k = 0; k < taps; k++) {
            const T value = c < s.in ? depthwise[c * taps + k] : T(0);
            t[((c / L) * taps + k) * L + c % L] = value;
            if (backward) f[((c / L) * taps + taps - 1 - k) * L + c % L] = value;
        }
    // product: [block of outputs][group][input, padded]; transposed: [group][block of inputs][output]. A dense convolution's groups are its
    // taps; transposed they are turned, and stand behind the block of inputs.
    T *p = reinterpret_cast<T*>(w.product), *r = reinterpret_cast<T*>(w.transposed);
    const Int groups = s.groups(), padded = groups == 1 ? s.in : bi * L;
    if (!backward) {
        if (s.out % L || groups > 1) std::memset(p, 0, sizeof(T) * bo * L * count);
        for (Int o = 0; o < s.out; o++) {
            T* to = p + o / L * count * L + o % L;
            const T* from = pointwise + o * groups * s.in;
            for (Int g = 0; g < groups; g++)
                for (Int c = 0; c < s.in; c++) to[(g * padded + c) * L] = from[g * s.in + c];
        }
        if (by_tiles(s)) weights_by_tiles(s, w.product, bo, s.in, w.tiles);
        return;
    }
    const Int outs = s.dense() ? bo * L : s.out;
    const Int step = s.dense() ? outs * L : bi * outs * L, apart = s.dense() ? groups * outs * L : outs * L;  // of groups, of blocks
    if (s.in % L) std::memset(r, 0, sizeof(T) * groups * bi * L * outs);
    for (Int g = 0; g < groups; g++) {
        T* to = r + (s.dense() ? groups - 1 - g : g) * step;
        for (Int b = 0; b < bi; b++) {
            const Int lanes = std::min(L, s.in - b * L);
            for (Int o = 0; o < s.out; o++) {
                const T* from = pointwise + (o * groups + g) * s.in + b * L;
                for (Int l = 0; l < lanes; l++) to[b * apart + o * L + l] = from[l];
            }
        }
    }
    if (by_tiles(s)) weights_by_tiles(s, w.transposed, bi, s.out, w.tiles);
}

template <class V> Packed<V> packed_at(Cutter& cut, const Shape& s) {
    constexpr Int L = sizeof(V) / sizeof(T);
    const Int bi = blocks(s.in, L), bo = blocks(s.out, L), taps = s.taps();
    const Int outs = s.dense() ? bo * L : s.out;
    return {cut.take<V>(bi * taps), cut.take<V>(bi * taps), cut.take<V>(bo * contracted<V>(s)), cut.take<V>(s.groups() * bi * outs),
            cut.take<V>(by_tiles(s) ? Tiling(s).places() * Tiling::apart(1, std::max(bo * s.in, bi * s.out)) : 0)};
}

// relu(norm(x)) of some rows of one image, [block][row][column]; `down` vectors between rows of `to`, `apart` between blocks.
template <class V>
void fill(const Shape& s, const T* x, Int stride, const Affine& norm, Int row, Int rows, V* to, Int down, Int apart) {
    constexpr Int L = sizeof(V) / sizeof(T);
    const Int across = s.width;
    const bool normed = norm.mean;
    for (Int b = 0; b < blocks(s.in, L); b++) {
        const Int lanes = std::min(L, s.in - b * L);
        const auto [mean, scale, shift] = Normed<V>(norm, b * L, lanes);
        for (Int h = 0; h < rows; h++) {
            const T* from = x + (row + h) * across * stride + b * L;
            V* at = to + b * apart + h * down;
            with_lanes<V>(lanes, [&, m = mean, k = scale, a = shift](auto count) __attribute__((always_inline)) {
                if (normed)
                    for (Int i = 0; i < across; i++) at[i] = relu<V>((load<V>(from + i * stride, count) - m) * k + a);
                else
                    for (Int i = 0; i < across; i++) at[i] = relu<V>(load<V>(from + i * stride, count));
            });
        }
    }
}

// Planes, and what they hold: stages that read the same fill them once.
template <class V> struct Planes {
    V* at = nullptr;
    const T *x = nullptr;
    Affine norm = {};

    void hold(const Shape& s, const T* from, Int stride, const Affine& how) {
        if (from == x && how.mean == norm.mean && how.rstd == norm.rstd && how.weight == norm.weight && how.bias == norm.bias) return;
        fill(s, from, stride, how, 0, s.height, at + s.interior(), s.plane_width(), s.plane());
        x = from, norm = how;
    }
};

// The depthwise outputs of some rows, [block][row][column], from the padded planes; `apart` vectors between blocks.
template <class V>
void depthwise_rows(const Shape& s, const V* planes, const V* taps, Int row, Int rows, V* out, Int apart) {
    constexpr Int L = sizeof(V) / sizeof(T);
    const Int width = s.plane_width(), columns = s.out_width(), bi = blocks(s.in, L);
    for (Int b = 0; b < bi; b++) {
        const V* from = planes + b * s.plane() + row * s.stride * width;
        if (s.size > 0) {
            depthwise_area(from + s.first_tap(), taps + b * s.taps(), s.size, s.dilation * width, s.dilation, s.stride, s.stride * width, rows,
                           out + b * apart, columns, columns);
            continue;
        }
        from += s.interior();
        for (Int g = 0; g < s.groups(); g++)
            for (Int k = 0; k < rows; k++)
                for (Int i = 0; i < columns; i++)
                    out[(g * bi + b) * apart + k * columns + i] = from[(k * s.stride + g) * width + i * s.stride + g];
    }
}

// Taps of a strided depthwise convolution that lie on outputs, for inputs at (row, column) up to multiples of the stride; and where, in the
// outputs' padded gradient, what they read of it begins.
struct Strided {
    struct Tap { Int number, first; };
    std::vector<std::vector<Tap>> phases;  // [row % stride][column % stride]

    Strided() = default;
    Strided(const Shape& s, Int d_width) : phases(s.stride * s.stride) {
        for (Int i = 0; i < s.stride * s.stride; i++)
            for (Int k = 0; k < s.taps(); k++) {
                const Int row = i / s.stride + s.pad() - k / s.size * s.dilation, column = i % s.stride + s.pad() - k % s.size * s.dilation;
                if (row % s.stride == 0 && column % s.stride == 0) phases[i].push_back({k, row / s.stride * d_width + column / s.stride});
            }
    }
};

// One row of the gradient of its inputs; d: of its outputs, padded.
template <class V> void strided_line(const Shape& s, const Strided& strided, const V* d, Int d_width, const V* taps, Int h, V* line) {
    constexpr int P = 8;
    const Int stride = s.stride;
    for (Int phase = 0; phase < std::min(stride, s.width); phase++) {
        const Int pixels = (s.width - phase - 1) / stride + 1;
        const auto& read = strided.phases[h % stride * stride + phase];
        const V* from = d + h / stride * d_width;
        V* to = line + phase;
        Int p = 0;
        for (; p + P <= pixels; p += P) {
            V sum[P] = {};
            for (const auto& tap : read)
#pragma GCC unroll 8
                for (int u = 0; u < P; u++) sum[u] += taps[tap.number] * from[tap.first + p + u];
#pragma GCC unroll 8
            for (int u = 0; u < P; u++) to[(p + u) * stride] = sum[u];
        }
        for (; p < pixels; p++) {
            V sum = {};
            for (const auto& tap : read) sum += taps[tap.number] * from[tap.first + p];
            to[p * stride] = sum;
        }
    }
}

// Rows at a time, of outputs and of inputs: enough pixels for the loops over them, few enough for the caches.
Int rows_at_once(const Shape& s) { return s.dense() ? 1 : std::max<Int>(1, std::min(s.out_height(), 64 / std::max<Int>(1, s.out_width()))); }
Int lines_at_once(const Shape& s) { return std::max<Int>(1, std::min(s.height, 64 / std::max<Int>(1, s.width))); }

// Pieces of scratch that stages of one geometry share: only their inner parts are written, so that borders of zeros stay so.
template <class V> class Rooms {
    struct Room { Int key[5]; V* at; };
    std::vector<Room> rooms;

  public:
    // The place of the room of these numbers; `fresh` (may be null) where there is none yet.
    Int find(std::initializer_list<Int> key, Cutter& cut, size_t count) {
        for (size_t i = 0; i < rooms.size(); i++)
            if (std::equal(key.begin(), key.end(), rooms[i].key)) return Int(i);
        Room room{};
        std::copy(key.begin(), key.end(), room.key);
        room.at = cut.take<V>(count);
        if (cut.memory) std::memset(static_cast<void*>(room.at), 0, sizeof(V) * count);
        rooms.push_back(room);
        return Int(rooms.size()) - 1;
    }
    V* at(Int place) const { return rooms[place].at; }
    size_t size() const { return rooms.size(); }
};

// Stages are computed image by image, those together that wait for no moments of one another: what they read and write lies in the caches.
// So planes of one size are padded as the one needs it that reads farthest.
template <class S> void widen(std::vector<S>& stages) {
    for (S& a : stages)
        for (const S& b : stages)
            if (a.s.height == b.s.height && a.s.width == b.s.width && a.s.in == b.s.in)
                a.s.margin = std::max(a.s.margin, b.s.pad() - a.s.pad());
}

// What the stage after the i-th one reads, or the first one for the next image, and the i-th one does not.
template <class S> Soon after(const std::vector<S>& stages, Int n, size_t i, Int last) {
    const size_t next = (i + 1) % stages.size();
    const Int image = next ? n : n + 1;
    if (image >= last) return {};
    Soon soon = stages[next].reads(image);
    soon.without(stages[i].reads(n));
    return soon;
}

struct Forward {
    Shape s; const T* x; Int stride; Affine norm; const T *depthwise, *pointwise; T *out, *mean, *rstd; Follow follow;
    std::vector<double> of_images;

    Soon reads(Int n) const {
        Soon soon;
        soon.reads(x + n * s.pixels() * stride, s.pixels(), s.in, stride);
        return soon;
    }
};

template <class V> struct OwnForward {  // of a thread
    Packed<V> w; Int planes = -1; V *between, *result; Moments<V>* moments;
};

// One image of one stage, a dense convolution by tiles.
template <class V> void tiled_image_forward(Forward& f, OwnForward<V>& own, Planes<V>& planes, Soon soon, Int n) {
    constexpr Int L = sizeof(V) / sizeof(T);
    const Shape& s = f.s;
    const Int bo = blocks(s.out, L), pixels = s.height * s.width;
    planes.hold(s, f.x + n * pixels * f.stride, f.stride, f.norm);
    T* to = f.out + n * pixels * s.out;
    soon.times(Tiling(s).places() * Tiling(s).chunks());
    convolve_by_tiles(s, planes.at, s.in, own.w.tiles, bo, own.between, {to, L, s.out, s.out - (bo - 1) * L}, soon);
    if (f.mean)
        for (Int b = 0; b < bo; b++) {
            const Int lanes = std::min(L, s.out - b * L);
            own.moments[b] = {};
            own.moments[b].add(to + b * L, s.out, pixels, lanes, true);
            own.moments[b].end(pixels, lanes, &f.of_images[2 * n * s.out + b * L], &f.of_images[(2 * n + 1) * s.out + b * L]);
        }
}

// One image of one stage.
template <class V> void image_forward(Forward& f, OwnForward<V>& own, Planes<V>* planes, Soon soon, Int n) {
    constexpr Int L = sizeof(V) / sizeof(T);
    const Shape& s = f.s;
    if (by_tiles(s)) return tiled_image_forward(f, own, *planes, soon, n);
    const Int bo = blocks(s.out, L), rows = s.out_height(), columns = s.out_width(), width = s.plane_width(), contraction = contracted<V>(s);
    const Int outs = s.out, chunk = rows_at_once(s);
    T* to = f.out + n * rows * columns * s.out;
    write_soon(to, chunk * columns * outs);
    soon.times(2 * ((rows + chunk - 1) / chunk));
    const T* x = f.x + n * s.pixels() * f.stride;
    if (!s.bare()) planes->hold(s, x, f.stride, f.norm);
    for (Int r = 0; r < rows; r += chunk) {
        const Int here = std::min(chunk, rows - r), pixels = here * columns;
        if (r + here < rows) write_soon(to + (r + here) * columns * outs, pixels * outs);
        soon.ask();
        if (s.bare()) fill(s, x, f.stride, f.norm, r, here, own.between, columns, pixels);
        else if (!s.dense()) depthwise_rows(s, planes->at, own.w.taps, r, here, own.between, pixels);
        soon.ask();
        T* at = to + r * columns * s.out;
        // one whole block of outputs lies in memory as the product makes it
        const bool whole = bo == 1 && s.out == L;
        V* product = whole ? reinterpret_cast<V*>(at) : own.result;
        if (s.dense())
            for (Int b = 0; b < bo; b++)
                dense_row(planes->at + s.first_tap() + r * width, s.plane(), own.w.product + b * contraction, s.in, s.dense(),
                          s.dilation * width, s.dilation, product + b * pixels, columns);
        else pointwise_area(own.between, pixels, own.w.product, contraction, bo, product, pixels, pixels);
        for (Int b = 0; b < bo; b++) {
            const Int lanes = std::min(L, s.out - b * L);
            if (!whole)
                for (Int i = 0; i < pixels; i++) store<V>(at + i * outs + b * L, product[b * pixels + i], lanes);
            if (f.mean) {
                if (r == 0) own.moments[b] = {};
                own.moments[b].add(at + b * L, outs, pixels, lanes, r == 0);
            }
        }
    }
    if (f.mean)
        for (Int b = 0; b < bo; b++)
            own.moments[b].end(rows * columns, std::min(L, s.out - b * L), &f.of_images[2 * n * s.out + b * L],
                               &f.of_images[(2 * n + 1) * s.out + b * L]);
}

template <class V> void stages_forward(std::vector<Forward>& stages, Int threads) {
    constexpr Int L = sizeof(V) / sizeof(T);
    const Int images = stages[0].s.images;
    widen(stages);
    for (Forward& f : stages) f.of_images.resize(f.mean ? 2 * images * f.s.out : 0);
    threads = std::max<Int>(1, std::min(threads, images));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Cutter count{nullptr}, cut{nullptr};
        std::vector<OwnForward<V>> own(stages.size());
        std::vector<Planes<V>> planes;
        for (Cutter* c : {&count, &cut}) {
            if (c == &cut) c->memory = static_cast<char*>(scratch.at_least(count.used));
            Rooms<V> rooms;
            V *between = nullptr, *result = nullptr;
            Int most = 0, widest = 0, outputs = 0;
            for (size_t i = 0; i < stages.size(); i++) {
                const Shape& s = stages[i].s;
                const Int bi = blocks(s.in, L);
                own[i].w = packed_at<V>(*c, s);
                if (!s.bare()) own[i].planes = rooms.find({s.in, s.height, s.width, s.border()}, *c, bi * s.plane());
                const Int pixels = rows_at_once(s) * s.out_width();
                most = std::max(most, s.dense() ? 0 : s.groups() * bi * pixels), widest = std::max(widest, blocks(s.out, L) * pixels);
                outputs = std::max(outputs, blocks(s.out, L));
                if (by_tiles(s)) most = std::max(most, Tiling(s).scratch<V>(s));
            }
            between = c->template take<V>(most), result = c->template take<V>(widest);
            Moments<V>* moments = c->template take<Moments<V>>(outputs);
            planes.resize(rooms.size());
            for (size_t i = 0; i < planes.size(); i++) planes[i].at = rooms.at(i);
            for (OwnForward<V>& o : own) o.between = between, o.result = result, o.moments = moments;
        }
        for (size_t i = 0; i < stages.size(); i++) pack(stages[i].s, stages[i].depthwise, stages[i].pointwise, own[i].w, false);
        const Share share = own_share(images);
        for (Int n = share.first; n < share.last; n++)
            for (size_t i = 0; i < stages.size(); i++)
                image_forward(stages[i], own[i], own[i].planes < 0 ? nullptr : &planes[own[i].planes], after(stages, n, i, share.last), n);
    }
    for (Forward& f : stages)
        if (f.mean) merge_moments(f.of_images.data(), images, f.s.out, f.s.out_height() * f.s.out_width(), f.follow, f.mean, f.rstd);
}

// The gradient of a stage's output is coef[0] * factor[n] * g + coef[1] * (p - mean) + coef[2], p being that output: what a batch norm's
// backward makes of the gradient g of its own output. coef[1] null: the first term alone; p null with it.
struct Arriving {
    const T* g; Int g_stride; const T* factor; const T* p; const T* mean; const T* coef; bool normed;
};

// Sums of z and of z * (x - mean) over all images, z the gradient at a norm's output, to what `Arriving` needs of that norm.
void norm_backward(Int channels, double count, const double* sums, const T* rstd, const T* weight, bool by_batch, double scale, T* coef,
                   T* dweight, T* dbias) {
    for (Int c = 0; c < channels; c++) {
        const double r = rstd[c], w = weight ? weight[c] : 1.0, first = sums[c], second = sums[channels + c];
        coef[c] = T(scale * r * w);
        coef[channels + c] = by_batch ? T(-scale * r * w * r * r * second / count) : T(0);
        coef[2 * channels + c] = by_batch ? T(-scale * r * w * first / count) : T(0);
        if (dweight) dweight[c] = T(scale * r * second);
        if (dbias) dbias[c] = T(scale * first);
    }
}

// to[tap] += sum over pixels of d * what the tap reads. Taps of several rows at a time, for each line that is loaded; U pixels at once.
template <int K, int COLUMN, int STEP, int U, int ROWS, class V>
INLINE void depthwise_weight_pixels(const V* a, const V* g, Int below, V (*sum)[K]) {
    V v[U];
#pragma GCC unroll 8
    for (int u = 0; u < U; u++) v[u] = g[u];
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 64
        for (int q = 0; q <= (U - 1) * STEP + (K - 1) * COLUMN; q++) {
            const V x = a[i * below + q];
#pragma GCC unroll 8
            for (int j = 0; j < K; j++) {
                const int from = q - j * COLUMN;
                if (from >= 0 && from % STEP == 0 && from / STEP < U) sum[i][j] += v[from / STEP] * x;
            }
        }
}

template <int K, int COLUMN, int STEP, int ROWS, class V>
INLINE void depthwise_weight_rows(const V* plane, Int width, const V* d, Int d_width, Int rows, Int columns, V* to) {
    constexpr int U = MANY ? 4 : 2;
    V sum[ROWS][K] = {};
    for (Int r = 0; r < rows; r++) {
        const V *a = plane + r * STEP * width, *g = d + r * d_width;
        Int c = 0;
        for (; c + U <= columns; c += U) depthwise_weight_pixels<K, COLUMN, STEP, U, ROWS>(a + c * STEP, g + c, COLUMN * width, sum);
        for (; c < columns; c++) depthwise_weight_pixels<K, COLUMN, STEP, 1, ROWS>(a + c * STEP, g + c, COLUMN * width, sum);
    }
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < K; j++) to[i * K + j] += sum[i][j];
}

template <int K, int COLUMN, int STEP, class V>
void depthwise_weight_known(const V* plane, Int width, const V* d, Int d_width, Int rows, Int columns, V* to) {
    constexpr int ROWS = MANY ? 3 : 2;  // so many sums fit the registers
    int i = 0;
    for (; i + ROWS <= K; i += ROWS)
        depthwise_weight_rows<K, COLUMN, STEP, ROWS>(plane + i * COLUMN * width, width, d, d_width, rows, columns, to + i * K);
    if constexpr (K % ROWS != 0)
        depthwise_weight_rows<K, COLUMN, STEP, K % ROWS>(plane + i * COLUMN * width, width, d, d_width, rows, columns, to + i * K);
}

template <int K, class V>
bool depthwise_weight_of(const Shape& s, const V* plane, Int width, const V* d, Int d_width, V* to) {
    const Int rows = s.out_height(), columns = s.out_width();
    if (s.stride == 1 && s.dilation == 1) depthwise_weight_known<K, 1, 1>(plane, width, d, d_width, rows, columns, to);
    else if (s.stride == 1 && s.dilation == 2) depthwise_weight_known<K, 2, 1>(plane, width, d, d_width, rows, columns, to);
    else if (s.stride == 2 && s.dilation == 1) depthwise_weight_known<K, 1, 2>(plane, width, d, d_width, rows, columns, to);
    else if (s.stride == 2 && s.dilation == 2) depthwise_weight_known<K, 2, 2>(plane, width, d, d_width, rows, columns, to);
    else return false;
    return true;
}

template <class V> void depthwise_weight(const Shape& s, const V* plane, Int width, const V* d, Int d_width, V* to) {
    if (s.size == 3 && depthwise_weight_of<3>(s, plane, width, d, d_width, to)) return;
    if (s.size == 5 && depthwise_weight_of<5>(s, plane, width, d, d_width, to)) return;
    for (Int i = 0; i < s.size; i++)
        for (Int j = 0; j < s.size; j++) {
            V sum = {};
            for (Int r = 0; r < s.out_height(); r++) {
                const V* a = plane + (r * s.stride + i * s.dilation) * width + j * s.dilation;
                for (Int c = 0; c < s.out_width(); c++) sum += d[r * d_width + c] * a[c * s.stride];
            }
            to[i * s.size + j] += sum;
        }
}

// to[o][block] += sum over pixels of g[o] * d[block], for B blocks; g: [block of outputs][pixels], d: [block of inputs][pixels], `blocks` apart.
template <int O, int B, class V>
INLINE void outer(const T* g, const V* d, Int blocks, Int count, V* to, Int apart) {
    constexpr Int L = sizeof(V) / sizeof(T);
    V sum[O][B] = {};
    for (Int p = 0; p < count; p++) {
        V of[B];
#pragma GCC unroll 2
        for (int b = 0; b < B; b++) of[b] = d[b * blocks + p];
#pragma GCC unroll 16
        for (int o = 0; o < O; o++) {
            V x = g[p * L + o] - V{};
            if constexpr (B > 1) in_register(x);
#pragma GCC unroll 2
            for (int b = 0; b < B; b++) sum[o][b] += of[b] * x;
        }
    }
#pragma GCC unroll 16
    for (int o = 0; o < O; o++)
#pragma GCC unroll 2
        for (int b = 0; b < B; b++) to[o * apart + b] += sum[o][b];
}

// The same for all outputs, and for `number` blocks of inputs; g: `plane` vectors between blocks.
template <class V> void outers(const V* g, Int plane, const V* d, Int blocks, Int number, Int count, Int outs, V* to, Int apart) {
    constexpr Int L = sizeof(V) / sizeof(T);
    const auto from = [&](Int o) { return reinterpret_cast<const T*>(g + o / L * plane) + o % L; };
    for (Int b = 0; b < number;) {
        const bool two = MANY && b + 2 <= number;
        const V* e = d + b * blocks;
        V* at = to + b;
        Int o = 0;
        if (L % 16 == 0 && !two) for (; o + 16 <= outs; o += 16) outer<16, 1>(from(o), e, 0, count, at + o * apart, apart);
        for (; L % 8 == 0 && o + 8 <= outs; o += 8) {
            if (two) outer<8, 2>(from(o), e, blocks, count, at + o * apart, apart);
            else outer<8, 1>(from(o), e, 0, count, at + o * apart, apart);
        }
        for (; L % 4 == 0 && o + 4 <= outs; o += 4) {
            if (two) outer<4, 2>(from(o), e, blocks, count, at + o * apart, apart);
            else outer<4, 1>(from(o), e, 0, count, at + o * apart, apart);
        }
        for (; o < outs; o++) {
            if (two) outer<1, 2>(from(o), e, blocks, count, at + o * apart, apart);
            else outer<1, 1>(from(o), e, 0, count, at + o * apart, apart);
        }
        b += two ? 2 : 1;
    }
}

// to[o][tap][block] += sum over pixels of g[o] * x[block] of one image, both on padded planes. Between two rows of g stand zeros.
template <class V> void dense_weight(const Shape& s, const V* planes, const V* g, V* to) {
    constexpr Int L = sizeof(V) / sizeof(T);
    const Int bi = blocks(s.in, L), width = s.plane_width(), plane = s.plane(), vi = s.groups() * bi;
    const Int chunk = std::max<Int>(1, 128 / width);  // rows at a time
    for (Int r = 0; r < s.height; r += chunk) {
        const Int count = (std::min(chunk, s.height - r) - 1) * width + s.width;
        for (Int tap = 0; tap < s.groups(); tap++)
            for (Int b = 0; b < bi; b++) {
                const V* e = planes + b * plane + s.first_tap() + (r + tap / s.dense() * s.dilation) * width + tap % s.dense() * s.dilation;
                const auto from = [&](Int o) { return reinterpret_cast<const T*>(g + o / L * plane + s.interior() + r * width) + o % L; };
                V* at = to + tap * bi + b;
                Int o = 0;
                if (L % 8 == 0) for (; o + 8 <= s.out; o += 8) outer<8, 1>(from(o), e, 0, count, at + o * vi, vi);
                if (L % 4 == 0) for (; o + 4 <= s.out; o += 4) outer<4, 1>(from(o), e, 0, count, at + o * vi, vi);
                for (; o < s.out; o++) outer<1, 1>(from(o), e, 0, count, at + o * vi, vi);
            }
    }
}

struct Backward {
    Shape s; const T* x; Int stride; Affine norm; Arriving in; const T *depthwise, *pointwise; T* dx; bool accumulate; T *ddepthwise, *dpointwise;
    bool by_batch; T *coef, *small;
    std::vector<double> of_images;  // of each image and channel, at the norm before: the sum of the gradient, and of it times (x - mean)
    std::vector<T> of_threads;  // sums of the weights' gradients; zeros for threads that are not granted

    bool part() const { return s.out == 0; }
    Soon reads(Int n) const {
        const Int in_pixels = s.pixels(), pixels = part() ? in_pixels : s.out_pixels(), p_stride = part() ? stride : s.out;
        Soon soon;
        if (in.normed) soon.reads(in.p + n * pixels * p_stride, pixels, part() ? s.in : s.out, p_stride);
        if (!part()) soon.reads(x + n * in_pixels * stride, in_pixels, s.in, stride);
        if (dx) soon.reads(dx + n * in_pixels * s.in, in_pixels, s.in, s.in);
        return soon;
    }
    bool weights() const { return ddepthwise || dpointwise; }
    bool sums() const { return norm.mean && coef; }
    template <class V> Int vectors() const {  // of one thread
        constexpr Int L = sizeof(V) / sizeof(T);
        const Int bi = blocks(s.in, L);
        return (ddepthwise ? s.taps() * bi : 0) + (dpointwise ? s.out * s.groups() * bi : 0);
    }
};

template <class V> struct OwnBackward {  // of a thread
    Packed<V> w; Int planes = -1; Int d = -1; Int dense = -1; V *arrived, *between, *line, *spread, *dtaps, *dproduct, *whole, *sums;
    Strided strided;
};

template <class V>
void image_part_backward(const Backward& f, Int n) {
    constexpr Int L = sizeof(V) / sizeof(T);
    const Int pixels = f.s.height * f.s.width, channels = f.s.in;
    const Arriving& in = f.in;
    const Int g_stride = in.g_stride, p_stride = f.stride;
    const bool normed = in.normed, accumulate = f.accumulate;
    for (Int b = 0; b < blocks(channels, L); b++) {
        const Int lanes = std::min(L, channels - b * L);
        const V first = load<V>(in.coef + b * L, lanes) * (in.factor ? in.factor[n] : T(1));
        V second = {}, third = {}, mean = {};
        if (normed) {
            second = load<V>(in.coef + channels + b * L, lanes), third = load<V>(in.coef + 2 * channels + b * L, lanes);
            mean = load<V>(in.mean + b * L, lanes);
        }
        const T *g = in.g + n * pixels * g_stride + b * L, *p = normed ? in.p + n * pixels * p_stride + b * L : nullptr;
        T* out = f.dx + n * pixels * channels + b * L;
        with_lanes<V>(lanes, [&](auto count) __attribute__((always_inline)) {
            for (Int i = 0; i < pixels; i++) {
                read_soon(g + (i + AHEAD) * g_stride), write_soon(out + (i + AHEAD) * channels);
                if (normed) read_soon(p + (i + AHEAD) * p_stride);
                V v = first * load<V>(g + i * g_stride, count);
                if (normed) v += second * (load<V>(p + i * p_stride, count) - mean) + third;
                store<V>(out + i * channels, accumulate ? load<V>(out + i * channels, count) + v : v, count);
            }
        });
    }
}

constexpr Int WEIGHT_TILES = 32;  // at a time: more than where they are only read, as the sums are read and written once for all of them

// sums[place][o][block] += over the tiles of one image, both on padded planes: A g A^T of output o times B^T d B of the block.
template <int M, class V> void weight_of_image(const Shape& s, const Tiling& cut, const V* planes, const V* g, V* between, V* sums) {
    constexpr Int L = sizeof(V) / sizeof(T), N = M + 2, places = 4 * N;
    const Int bi = blocks(s.in, L), bo = blocks(s.out, L), width = s.plane_width();
    for (Int first = 0; first < cut.down; first += cut.rows) {
        const Int here = std::min(cut.rows, cut.down - first), count = here * cut.across;
        const Int in = cut.apart(bi, count), arrived = cut.apart(bo, count);
        V *tiles = between, *spread = tiles + places * in;
        tiles_of_planes<M>(s, cut, planes, s.in, first, here, tiles);
        for (Int b = 0; b < bo; b++)
            for (Int r = 0; r < here; r++) {
                const V* at = g + b * s.plane() + s.interior() + 2 * (first + r) * width;  // beside the image stand zeros
                V* to = spread + b * count + r * cut.across;
                const auto tile = [&](Int t, auto whole_one) __attribute__((always_inline)) {
                    V half[4][M], whole[N];
#pragma GCC unroll 4
                    for (int j = 0; j < M; j++) {
                        const Int c = whole_one ? M * t + j : std::min(M * t + j, s.width);
                        const V line[2] = {at[c], at[width + c]};
                        V of[4];
                        Down::spread(line, of);
#pragma GCC unroll 4
                        for (int i = 0; i < 4; i++) half[i][j] = of[i];
                    }
#pragma GCC unroll 4
                    for (int i = 0; i < 4; i++) {
                        Across<M>::spread(half[i], whole);
#pragma GCC unroll 6
                        for (int j = 0; j < N; j++) to[(i * N + j) * arrived + t] = whole[j];
                    }
                };
                Int t = 0;
                for (; t < s.width / M; t++) tile(t, std::true_type{});
                if (s.width % M) tile(t, std::false_type{});
            }
        for (Int place = 0; place < places; place++)
            outers(spread + place * arrived, count, tiles + place * in, count, bi, count, s.out, sums + place * s.out * bi, bi);
    }
}

template <class V> void weight_by_tiles(const Shape& s, const V* planes, const V* g, V* between, V* sums) {
    const Tiling cut(s, WEIGHT_TILES);
    if (cut.wide == 4) weight_of_image<4>(s, cut, planes, g, between, sums);
    else weight_of_image<2>(s, cut, planes, g, between, sums);
}

// The weights' gradient, [o][tap][block]: G^T of the sums G.
template <int M, class V> void weight_of_sums(const V* sums, Int out, Int number, V* to) {
    constexpr int N = M + 2;
    for (Int o = 0; o < out; o++)
        for (Int b = 0; b < number; b++) {
            V half[3][N], line[3];
            for (int j = 0; j < N; j++) {
                V m[4];
                for (int i = 0; i < 4; i++) m[i] = sums[((i * N + j) * out + o) * number + b];
                Down::gathered(m, line);
                for (int i = 0; i < 3; i++) half[i][j] = line[i];
            }
            for (int i = 0; i < 3; i++) {
                Across<M>::gathered(half[i], line);
                for (int j = 0; j < 3; j++) to[(o * 9 + 3 * i + j) * number + b] = line[j];
            }
        }
}

template <class V> void weight_of_tiles(const Shape& s, const V* sums, Int number, V* to) {
    if (Tiling(s).wide == 4) weight_of_sums<4>(sums, s.out, number, to);
    else weight_of_sums<2>(sums, s.out, number, to);
}

// One image of one stage. d: the gradient of the pointwise product's inputs, padded by `gradient_border`.
template <class V>
void image_backward(Backward& f, OwnBackward<V>& own, Planes<V>* held, V* d, V* dense, Soon soon, Int n) {
    constexpr Int L = sizeof(V) / sizeof(T);
    const Shape& s = f.s;
    const Arriving& in = f.in;
    const Int bi = blocks(s.in, L), bo = blocks(s.out, L), rows = s.out_height(), columns = s.out_width(), taps = s.taps();
    const Int width = s.plane_width(), plane = s.plane(), vi = s.groups() * bi;
    const bool same = s.stride == 1, inner = !s.dense() && (f.ddepthwise || f.dx);
    const Int d_border = s.gradient_border(), d_width = columns + 2 * d_border, d_plane = (rows + 2 * d_border) * d_width;
    const Int d_interior = d_border * d_width + d_border, d_first = d_border == 0 ? 0 : s.margin * d_width + s.margin;
    const Int chunk = rows_at_once(s), arrived_plane = s.dense() ? plane : chunk * columns;
    V *arrived = s.dense() ? dense : own.arrived, *planes = held ? held->at : nullptr;
    const T* xn = f.x + n * s.height * s.width * f.stride;
    const T factor = in.factor ? in.factor[n] : T(1);
    // in registers: what is written could be these numbers, for all that a compiler knows
    const Int x_stride = f.stride, g_stride = in.g_stride, ins = s.in, outs = s.out, across = s.width;
    const bool normed = f.norm.mean, sums = f.sums(), accumulate = f.accumulate;
    if (held) held->hold(s, xn, f.stride, f.norm);
    soon.times((2 + (f.dpointwise && !s.dense())) * ((rows + chunk - 1) / chunk) + (f.dx ? bi * s.height : 0));
    for (Int r = 0; r < rows; r += chunk) {
        const Int here = std::min(chunk, rows - r), pixels = here * columns;
        soon.ask();
        const Int at = (n * rows + r) * columns;
        for (Int b = 0; b < bo; b++) {
            const Int lanes = std::min(L, s.out - b * L);
            const T *g = in.g + at * g_stride + b * L;
            V* to = arrived + b * arrived_plane + (s.dense() ? s.interior() + r * width : 0);
            const V first = load<V>(in.coef + b * L, lanes) * factor;
            if (in.normed) {
                const T* p = in.p + at * s.out + b * L;
                const V mean = load<V>(in.mean + b * L, lanes), second = load<V>(in.coef + s.out + b * L, lanes);
                const V third = load<V>(in.coef + 2 * s.out + b * L, lanes);
                with_lanes<V>(lanes, [&](auto count) __attribute__((always_inline)) {
                    for (Int i = 0; i < pixels; i++)
                        to[i] = first * load<V>(g + i * g_stride, count) + (second * (load<V>(p + i * outs, count) - mean) + third);
                });
            } else {
                with_lanes<V>(lanes, [&](auto count) __attribute__((always_inline)) {
                    for (Int i = 0; i < pixels; i++) to[i] = first * load<V>(g + i * g_stride, count);
                });
            }
        }
        soon.ask();
        if (inner && d_border == 0) pointwise_area(arrived, chunk * columns, own.w.transposed, s.out, vi, d + r * columns, d_plane, pixels);
        else if (inner)
            for (Int k = 0; k < here; k++)
                pointwise_area(arrived + k * columns, chunk * columns, own.w.transposed, s.out, vi, d + d_interior + (r + k) * d_width, d_plane,
                               columns);
        if (!f.dpointwise || s.dense()) continue;
        soon.ask();
        if (s.bare()) fill(s, xn, f.stride, f.norm, r, here, own.between, columns, chunk * columns);
        else depthwise_rows(s, planes, own.w.taps, r, here, own.between, chunk * columns);
        outers(arrived, chunk * columns, own.between, chunk * columns, vi, pixels, s.out, own.dproduct, vi);
    }
    const bool tiled = by_tiles(s);
    if (f.dpointwise && sums_by_tiles<V>(s)) weight_by_tiles(s, planes, arrived, own.between, own.sums);
    else if (f.dpointwise && s.dense()) dense_weight(s, planes, arrived, own.dproduct);
    if (f.ddepthwise)
        for (Int b = 0; b < bi; b++) {
            const V *e = d + b * d_plane + d_interior, *from = planes + b * plane + s.first_tap();
            depthwise_weight(s, from, width, e, d_width, own.dtaps + b * taps);
        }
    if (!f.dx) return;
    T* dxn = f.dx + n * s.height * s.width * s.in;
    if (tiled)
        convolve_by_tiles(s, arrived, s.out, own.w.tiles, bi, own.between, {reinterpret_cast<T*>(own.whole), s.height * s.width * L, L, L}, soon);
    const Int lines = lines_at_once(s), pad = s.pad(), spread_width = s.width + 2 * pad, spread_plane = (s.height + 2 * pad) * spread_width;
    for (Int b = 0; b < bi; b++) {
        const Int lanes = std::min(L, s.in - b * L);
        const auto [mean, scale, shift] = Normed<V>(f.norm, b * L, lanes);
        const V* e = d + b * d_plane;
        V* spread = own.spread;
        if (!same && s.size <= 0) {  // each input is read once at most
            std::memset(static_cast<void*>(spread), 0, sizeof(V) * spread_plane);
            for (Int g = 0; g < s.groups(); g++)
                for (Int r = 0; r < rows; r++)
                    for (Int i = 0; i < columns; i++)
                        spread[(r * s.stride + g + pad) * spread_width + i * s.stride + g + pad] = e[g * bi * d_plane + r * d_width + i];
        }
        double total[2][L] = {};
        for (Int h = 0; h < s.height; h++) {
            soon.ask();
            const V* got = own.line;
            if (tiled) got = own.whole + (b * s.height + h) * s.width;
            else if (s.dense())
                dense_row(arrived + s.first_tap() + h * width, plane, own.w.transposed + b * s.groups() * bo * L, s.out, s.dense(),
                          s.dilation * width, s.dilation, own.line, s.width);
            else if (!same && s.size <= 0) got = spread + (h + pad) * spread_width + pad;
            else if (!same) strided_line(s, own.strided, e + d_interior, d_width, own.w.taps + b * taps, h, own.line);
            else if (s.size > 0) {
                if (h % lines == 0)
                    depthwise_area(e + d_first + h * d_width, own.w.flipped + b * taps, s.size, s.dilation * d_width, s.dilation, Int(1), d_width,
                                   std::min(lines, s.height - h), own.line, across, across);
                got += h % lines * across;
            } else got = e + d_interior + h * d_width;
            const T* from = xn + h * s.width * f.stride + b * L;
            T* to = dxn + h * s.width * s.in + b * L;
            with_lanes<V>(lanes, [&, m = mean, k = scale, a = shift](auto count) __attribute__((always_inline)) {
                if (normed) {
                    V first = {}, second = {};
                    for (Int i = 0; i < across; i++) {
                        const V centred = load<V>(from + i * x_stride, count) - m;
                        const V z = where_positive<V>(centred * k + a, got[i]);
                        first += z, second += z * centred;
                        store<V>(to + i * ins, accumulate ? load<V>(to + i * ins, count) + z : z, count);
                    }
                    if (sums) flush(first, total[0], L), flush(second, total[1], L);
                } else if (accumulate) {
                    for (Int i = 0; i < across; i++)
                        store<V>(to + i * ins, load<V>(to + i * ins, count) + where_positive<V>(load<V>(from + i * x_stride, count), got[i]), count);
                } else {
                    for (Int i = 0; i < across; i++)
                        store<V>(to + i * ins, where_positive<V>(load<V>(from + i * x_stride, count), got[i]), count);
                }
            });
        }
        if (sums)
            for (Int l = 0; l < lanes; l++)
                for (int k = 0; k < 2; k++) f.of_images[(2 * n + k) * s.in + b * L + l] = total[k][l];
    }
}

// Places of a thread's scratch for all stages. Counts, or hands out.
template <class V>
void lay_out(const std::vector<Backward>& stages, Cutter& cut, Rooms<V>& rooms, std::vector<OwnBackward<V>>& own) {
    constexpr Int L = sizeof(V) / sizeof(T);
    Int arrived = 0, between = 0, line = 0, spread = 0, whole = 0;
    for (size_t i = 0; i < stages.size(); i++) {
        const Backward& f = stages[i];
        const Shape& s = f.s;
        if (f.part()) continue;
        OwnBackward<V>& o = own[i];
        const Int bi = blocks(s.in, L), bo = blocks(s.out, L), rows = s.out_height(), columns = s.out_width(), vi = s.groups() * bi;
        const Int border = s.gradient_border();
        o.w = packed_at<V>(cut, s);
        if (f.weights() && !s.bare()) o.planes = rooms.find({0, s.in, s.height, s.width, s.border()}, cut, bi * s.plane());
        if (!s.dense()) o.d = rooms.find({1, vi, rows, columns, border}, cut, vi * (rows + 2 * border) * (columns + 2 * border));
        else o.dense = rooms.find({2, s.out, s.height, s.width, s.border()}, cut, bo * s.plane());
        const Int pixels = s.dense() ? 0 : rows_at_once(s) * columns;
        arrived = std::max(arrived, bo * pixels), between = std::max(between, vi * pixels);
        line = std::max(line, lines_at_once(s) * s.width);
        spread = std::max(spread, s.stride == 1 ? 0 : (s.height + 2 * s.pad()) * (s.width + 2 * s.pad()));
        const bool tiled = by_tiles(s);
        if (tiled) between = std::max(between, Tiling(s, WEIGHT_TILES).scratch<V>(s)), whole = std::max(whole, bi * s.height * s.width);
        const Int sums = f.dpointwise ? sums_by_tiles<V>(s) : 0;
        o.dtaps = cut.take<V>(bi * s.taps()), o.dproduct = cut.take<V>(bo * L * vi), o.sums = cut.take<V>(sums);
        if (cut.memory) {
            std::memset(static_cast<void*>(o.sums), 0, sizeof(V) * sums);
            std::memset(static_cast<void*>(o.dtaps), 0, sizeof(V) * bi * s.taps());
            std::memset(static_cast<void*>(o.dproduct), 0, sizeof(V) * bo * L * vi);
        }
    }
    V* at[5] = {cut.take<V>(arrived), cut.take<V>(between), cut.take<V>(line), cut.take<V>(spread), cut.take<V>(whole)};
    for (OwnBackward<V>& o : own) o.arrived = at[0], o.between = at[1], o.line = at[2], o.spread = at[3], o.whole = at[4];
}

// Of a stage whose images are done: weights' gradients, and the coefficients of its input's norm.
template <class V> void end_backward(Backward& f, Int threads) {
    constexpr Int L = sizeof(V) / sizeof(T);
    const Shape& s = f.s;
    const Int taps = s.taps(), bi = blocks(s.in, L), vi = s.groups() * bi, size = f.template vectors<V>() * L;
    const Int first = f.ddepthwise ? taps * bi * L : 0;
    const auto total = [&](Int at) {
        double sum = 0;
        for (Int t = 0; t < threads; t++) sum += f.of_threads[t * size + at];
        return T(sum);
    };
    if (f.ddepthwise)
        for (Int c = 0; c < s.in; c++)
            for (Int k = 0; k < taps; k++) f.ddepthwise[c * taps + k] = total(((c / L) * taps + k) * L + c % L);
    if (f.dpointwise)
        for (Int o = 0; o < s.out; o++)
            for (Int g = 0; g < s.groups(); g++)
                for (Int c = 0; c < s.in; c++) f.dpointwise[(o * s.groups() + g) * s.in + c] = total(first + (o * vi + g * bi) * L + c);
    if (f.sums()) {
        std::vector<double> sums(2 * s.in);
        for (Int c = 0; c < 2 * s.in; c++)
            for (Int n = 0; n < s.images; n++) sums[c] += f.of_images[2 * n * s.in + c];
        norm_backward(s.in, double(s.images) * double(s.height * s.width), sums.data(), f.norm.rstd, f.norm.weight, f.by_batch, 1.0, f.coef,
                      f.small, f.small + s.in);
    } else if (f.coef)  // no norm: the gradient goes on as it is
        std::fill(f.coef, f.coef + s.in, T(1));
}

template <class V> void stages_backward(std::vector<Backward>& stages, Int threads) {
    constexpr Int L = sizeof(V) / sizeof(T);
    const Int images = stages[0].s.images;
    widen(stages);
    threads = std::max<Int>(1, std::min(threads, images));
    for (Backward& f : stages) {
        if (f.part()) continue;
        f.of_images.resize(f.sums() ? 2 * images * f.s.in : 0);
        f.of_threads.resize(threads * f.template vectors<V>() * L);
    }
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Cutter count{nullptr}, cut{nullptr};
        std::vector<OwnBackward<V>> own(stages.size());
        Rooms<V> rooms;
        for (Cutter* c : {&count, &cut}) {
            if (c == &cut) c->memory = static_cast<char*>(scratch.at_least(count.used));
            rooms = {};
            lay_out(stages, *c, rooms, own);
        }
        std::vector<Planes<V>> held(rooms.size());
        for (size_t i = 0; i < held.size(); i++) held[i].at = rooms.at(i);
        for (size_t i = 0; i < stages.size(); i++)
            if (!stages[i].part()) {
                const Shape& s = stages[i].s;
                pack(s, stages[i].depthwise, stages[i].pointwise, own[i].w, true);
                if (s.stride > 1 && s.size > 0) own[i].strided = {s, s.out_width() + 2 * s.gradient_border()};
            }
        const Share share = own_share(images);
        for (Int n = share.first; n < share.last; n++)
            for (size_t i = 0; i < stages.size(); i++) {
                OwnBackward<V>& o = own[i];
                if (stages[i].part()) image_part_backward<V>(stages[i], n);
                else
                    image_backward(stages[i], o, o.planes < 0 ? nullptr : &held[o.planes], o.d < 0 ? nullptr : rooms.at(o.d),
                                   o.dense < 0 ? nullptr : rooms.at(o.dense), after(stages, n, i, share.last), n);
            }
        for (size_t i = 0; i < stages.size(); i++) {
            Backward& f = stages[i];
            if (f.part() || !f.weights()) continue;
            const Int bi = blocks(f.s.in, L), first = f.ddepthwise ? f.s.taps() * bi * L : 0;
            T* to = f.of_threads.data() + thread_number() * f.template vectors<V>() * L;
            if (f.dpointwise && sums_by_tiles<V>(f.s)) weight_of_tiles(f.s, own[i].sums, bi, own[i].dproduct);
            if (f.ddepthwise) std::memcpy(to, own[i].dtaps, sizeof(T) * first);
            if (f.dpointwise) std::memcpy(to + first, own[i].dproduct, sizeof(T) * f.s.out * f.s.groups() * bi * L);
        }
    }
    for (Backward& f : stages)
        if (!f.part()) end_backward<V>(f, threads);
}

// ---- the weighted sum of normalised parts

// As ops/kernels/native.py lays it out, eight numbers a part.
struct Part { const T* p; Int stride; const T *mean, *rstd, *weight, *bias, *scale, *factor; };

// Adds G parts to one block of `count` pixels, or begins with them.
template <int G, class V>
INLINE void add_parts(const T* const* parts, const Int* strides, const V* means, const V* scales, V shift, bool begins, T* to, Int apart,
                      Int lanes, Int count) {
    const T* from[G];
    Int stride[G];
    V mean[G], scale[G];
#pragma GCC unroll 4
    for (int i = 0; i < G; i++) from[i] = parts[i], stride[i] = strides[i], mean[i] = means[i], scale[i] = scales[i];
    with_lanes<V>(lanes, [&](auto whole) __attribute__((always_inline)) {
        for (Int p = 0; p < count; p++) {
            write_soon(to + (p + AHEAD) * apart);
#pragma GCC unroll 4
            for (int i = 0; i < G; i++) read_soon(from[i] + (p + AHEAD) * stride[i]);
            V sum = begins ? shift : load<V>(to + p * apart, whole) + shift;
#pragma GCC unroll 4
            for (int i = 0; i < G; i++) sum += (load<V>(from[i] + p * stride[i], whole) - mean[i]) * scale[i];
            store<V>(to + p * apart, sum, whole);
        }
    });
}

constexpr Int GROUP = 4;  // parts that are added up at once

// Adds parts [begin, end) to `out`, or begins it with them.
template <class V>
void mix_forward(Int images, Int pixels, Int channels, Int begin, Int end, const Part* parts, T* out, Int threads) {
    constexpr Int L = sizeof(V) / sizeof(T), group = GROUP;
    const Int chunk = std::max<Int>(1, 4096 / std::max<Int>(1, channels));
    threads = std::max<Int>(1, std::min(threads, images));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const Share own = own_share(images);
        for (Int n = own.first; n < own.last; n++)
            for (Int start = 0; start < pixels; start += chunk) {
                const Int at = n * pixels + start, here = std::min(chunk, pixels - start);
                for (Int i = begin; i < end; i += group)
                    for (Int b = 0; b < blocks(channels, L); b++) {
                        const Int lanes = std::min(L, channels - b * L), g = std::min(group, end - i);
                        const T* from[group];
                        Int stride[group];
                        V mean[group], scale[group], shift = {};
                        for (Int k = 0; k < g; k++) {
                            const Part& q = parts[i + k];
                            const T factor = (q.scale ? *q.scale : T(1)) * (q.factor ? q.factor[n] : T(1));
                            from[k] = q.p + at * q.stride + b * L, stride[k] = q.stride;
                            mean[k] = V{}, scale[k] = V{} + factor;
                            if (q.mean) mean[k] = load<V>(q.mean + b * L, lanes), scale[k] *= load<V>(q.rstd + b * L, lanes);
                            if (q.weight) scale[k] *= load<V>(q.weight + b * L, lanes);
                            if (q.bias) shift += load<V>(q.bias + b * L, lanes) * factor;
                        }
                        T* to = out + at * channels + b * L;
                        switch (g) {
                            case 1: add_parts<1>(from, stride, mean, scale, shift, i == 0, to, channels, lanes, here); break;
                            case 2: add_parts<2>(from, stride, mean, scale, shift, i == 0, to, channels, lanes, here); break;
                            case 3: add_parts<3>(from, stride, mean, scale, shift, i == 0, to, channels, lanes, here); break;
                            default: add_parts<4>(from, stride, mean, scale, shift, i == 0, to, channels, lanes, here);
                        }
                    }
            }
    }
}

// Sums of g over each image, (images, channels).
template <class V>
void gradient_sums(Int images, Int pixels, Int channels, const T* g, Int g_stride, double* of_images, Int threads) {
    constexpr Int L = sizeof(V) / sizeof(T);
    const Int chunk = std::max<Int>(1, 4096 / std::max<Int>(1, channels));
    threads = std::max<Int>(1, std::min(threads, images));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const Share own = own_share(images);
        for (Int n = own.first; n < own.last; n++)
            for (Int start = 0; start < pixels; start += chunk) {
                const Int at = n * pixels + start, here = std::min(chunk, pixels - start);
                for (Int b = 0; b < blocks(channels, L); b++) {
                    const Int lanes = std::min(L, channels - b * L);
                    const T* from = g + at * g_stride + b * L;
                    V sum[4] = {};
                    with_lanes<V>(lanes, [&](auto count) __attribute__((always_inline)) {
                        Int p = 0;
                        for (; p + 4 <= here; p += 4)
#pragma GCC unroll 4
                            for (int u = 0; u < 4; u++) sum[u] += load<V>(from + (p + u) * g_stride, count);
                        for (; p < here; p++) sum[0] += load<V>(from + p * g_stride, count);
                    });
                    flush(V((sum[0] + sum[1]) + (sum[2] + sum[3])), of_images + n * channels + b * L, lanes);
                }
            }
    }
}

// Sums of g * (p - mean) of some parts over each image, (images, channels) of each; null: not wanted.
template <class V>
void part_sums(Int images, Int pixels, Int channels, const Part* parts, double* const* of_images, Int count, const T* g, Int g_stride, Int threads) {
    constexpr Int L = sizeof(V) / sizeof(T);
    const Int chunk = std::max<Int>(1, 4096 / std::max<Int>(1, channels));
    threads = std::max<Int>(1, std::min(threads, images));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const Share own = own_share(images);
        for (Int n = own.first; n < own.last; n++)
            for (Int start = 0; start < pixels; start += chunk) {
                const Int at = n * pixels + start, here = std::min(chunk, pixels - start);
                for (Int i = 0; i < count; i++)
                    for (Int b = 0; b < blocks(channels, L) && of_images[i]; b++) {
                        const Part& q = parts[i];
                        const Int lanes = std::min(L, channels - b * L);
                        const T *from = g + at * g_stride + b * L, *value = q.p + at * q.stride + b * L;
                        V mean = {};
                        if (q.mean) mean = load<V>(q.mean + b * L, lanes);
                        const Int stride = q.stride;
                        V sum[4] = {};
                        with_lanes<V>(lanes, [&](auto whole) __attribute__((always_inline)) {
                            Int p = 0;
                            for (; p + 4 <= here; p += 4)
#pragma GCC unroll 4
                                for (int u = 0; u < 4; u++)
                                    sum[u] += load<V>(from + (p + u) * g_stride, whole) * (load<V>(value + (p + u) * stride, whole) - mean);
                            for (; p < here; p++) sum[0] += load<V>(from + p * g_stride, whole) * (load<V>(value + p * stride, whole) - mean);
                        });
                        flush(V((sum[0] + sum[1]) + (sum[2] + sum[3])), of_images[i] + n * channels + b * L, lanes);
                    }
            }
    }
}

// Of one part, from its sums and those of g: the coefficients of its gradient (`Arriving`), and the gradients of scale, weight and bias.
// flags: 1 where the norm is of the batch's own moments, 2 where sums over g are needed.
void part_coefficients(Int images, Int pixels, Int channels, const Part& q, int64_t flags, const double* of_g, const double* of_part, T* coef,
                       T* dscale, T* dweight, T* dbias) {
    std::vector<double> sums(2 * channels);
    for (Int n = 0; n < images; n++) {
        const double factor = q.factor ? q.factor[n] : 1.0;
        for (Int c = 0; c < channels; c++)
            sums[c] += factor * of_g[n * channels + c], sums[channels + c] += factor * of_part[n * channels + c];
    }
    const std::vector<T> ones(q.rstd ? 0 : channels, T(1));
    const T* rstd = q.rstd ? q.rstd : ones.data();
    double total = 0;
    for (Int c = 0; c < channels; c++)
        total += double(rstd[c]) * (q.weight ? q.weight[c] : 1.0) * sums[channels + c] + (q.bias ? q.bias[c] * sums[c] : 0.0);
    *dscale = T(total);
    norm_backward(channels, double(images) * double(pixels), sums.data(), rstd, q.weight, flags & 1, q.scale ? double(*q.scale) : 1.0, coef,
                  dweight, dbias);
}

template <class V>
void moments_of(Int images, Int height, Int width, Int channels, const T* x, Int stride, const Follow& follow, T* mean, T* spread, Int threads) {
    constexpr Int L = sizeof(V) / sizeof(T);
    std::vector<double> of_images(2 * images * channels);
    threads = std::max<Int>(1, std::min(threads, images));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const Share own = own_share(images);
        for (Int n = own.first; n < own.last; n++)
            for (Int b = 0; b < blocks(channels, L); b++) {
                const Int lanes = std::min(L, channels - b * L);
                Moments<V> moments;
                moments.add(x + n * height * width * stride + b * L, stride, height * width, lanes, true);
                moments.end(height * width, lanes, &of_images[2 * n * channels + b * L], &of_images[(2 * n + 1) * channels + b * L]);
            }
    }
    merge_moments(of_images.data(), images, channels, height * width, follow, mean, spread);
}

// ---- pooling

// Of each output along one side: the first tap of its window that lies on the image, and how many do.
struct Windows {
    std::vector<Int> first;
    std::vector<T> counts;
    Windows(Int side, Int size, Int stride) : first((side - 1) / stride + 1), counts(first.size()) {
        for (Int o = 0; o < Int(first.size()); o++) {
            const Int begin = std::max<Int>(0, size / 2 - o * stride), end = std::min(size, side - o * stride + size / 2);
            first[o] = begin, counts[o] = T(end - begin);
        }
    }
};

template <Int LANES> struct Bytes;
#define BYTES(LANES) template <> struct Bytes<LANES> { typedef uint8_t V __attribute__((vector_size(LANES))); };
BYTES(2) BYTES(4) BYTES(8) BYTES(16)

// Vectors of as many whole numbers as V has reals, and of bytes.
template <class V> struct Whole {
    static constexpr Int L = sizeof(V) / sizeof(T);
    typedef decltype(V{} < V{}) I;
    typedef typename Bytes<L>::V B;
    static INLINE I all(Int value) { return I{} + static_cast<typename std::remove_reference<decltype(I{}[0])>::type>(value); }
    static INLINE I load(const uint8_t* at, Int lanes) {
        if (lanes == L) {
            B bytes;
            std::memcpy(&bytes, at, L);
            return __builtin_convertvector(bytes, I);
        }
        T values[L] = {};
        for (Int l = 0; l < lanes; l++) values[l] = T(at[l]);
        V v;
        std::memcpy(&v, values, sizeof(V));
        return __builtin_convertvector(v, I);
    }
    static INLINE void store(uint8_t* at, I v, Int lanes) {
        const B bytes = __builtin_convertvector(v, B);
        if (lanes == L) std::memcpy(at, &bytes, L);
        else for (Int l = 0; l < lanes; l++) at[l] = bytes[l];
    }
};

// The first of the largest so far: what is not a number wins, and stays.
template <class V, class I> INLINE void take_larger(V y, I at, V& best, I& where) {
    const auto better = ~(y <= best) & (best == best);
    best = better ? y : best, where = better ? at : where;
}

// Of each output of one row of an image the largest of `size` pixels beside one another, and its tap. K: the size; 0: `size` says. first: the taps
// that lie on the image.
template <int K, class V>
INLINE void largest_beside(const V* line, Int size, Int step, const Int* first, Int columns, V* best, typename Whole<V>::I* where) {
    const int k = K ? K : int(size);
    for (Int i = 0; i < columns; i++) {
        V v = V{} - std::numeric_limits<T>::infinity();
        auto at = Whole<V>::all(first[i]);
#pragma GCC unroll 3
        for (int l = 0; l < k; l++) take_larger(line[i * step + l], Whole<V>::all(l), v, at);
        best[i] = v, where[i] = at;
    }
}

// index: the tap of the first of the largest entries; null: not wanted. Along the rows first, each once, then across.
template <int K, class V> void max_pool_of(const Shape& s, const T* x, Int stride, T* out, uint8_t* index, Int threads) {
    constexpr Int L = sizeof(V) / sizeof(T);
    typedef typename Whole<V>::I I;
    const Int size = K ? K : s.size, step = s.stride, pad = size / 2, rows = s.out_height(), columns = s.out_width();
    const Windows vertical(s.height, size, step), horizontal(s.width, size, step);
    const V lowest = V{} - std::numeric_limits<T>::infinity();
    threads = std::max<Int>(1, std::min(threads, s.images));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Cutter cut{static_cast<char*>(scratch.at_least(sizeof(V) * (s.width + 2 * pad + 2 * (size + 1) * columns) + 3 * LINE))};
        V *line = cut.take<V>(s.width + 2 * pad), *best = cut.take<V>((size + 1) * columns);  // the last `size` rows; one beyond the image
        I* where = cut.take<I>((size + 1) * columns);
        std::fill(line, line + s.width + 2 * pad, lowest);
        std::fill(best + size * columns, best + (size + 1) * columns, lowest);
        std::fill(where + size * columns, where + (size + 1) * columns, I{});
        std::vector<Int> window(size);
        const Share own = own_share(s.images);
        for (Int n = own.first; n < own.last; n++)
            for (Int b = 0; b < s.in; b += L) {
                const Int lanes = std::min(L, s.in - b);
                Int done = 0;  // rows of the image
                for (Int r = 0; r < rows; r++) {
                    const Int first = r * step - pad;
                    for (done = std::max(done, first); done < std::min(first + size, s.height); done++) {
                        const T* from = x + (n * s.height + done) * s.width * stride + b;
                        with_lanes<V>(lanes, [&](auto count) __attribute__((always_inline)) {
                            for (Int i = 0; i < s.width; i++) line[i + pad] = load<V>(from + i * stride, count);
                        });
                        const Int at = done % size * columns;
                        largest_beside<K>(line, size, step, horizontal.first.data(), columns, best + at, where + at);
                    }
                    for (Int k = 0; k < size; k++) window[k] = (first + k < 0 || first + k >= s.height ? size : (first + k) % size) * columns;
                    T* to = out + (n * rows + r) * columns * s.in + b;
                    uint8_t* places = index ? index + (n * rows + r) * columns * s.in + b : nullptr;
                    const Int* window_of = window.data();
                    with_lanes<V>(lanes, [&](auto count) __attribute__((always_inline)) {
                        for (Int i = 0; i < columns; i++) {
                            V v = lowest;
                            I at = Whole<V>::all(vertical.first[r] * size + horizontal.first[i]);
#pragma GCC unroll 3
                            for (int k = 0; k < (K ? K : int(size)); k++)
                                take_larger(best[window_of[k] + i], where[window_of[k] + i] + Whole<V>::all(k * size), v, at);
                            write_soon(to + (columns + i) * s.in);
                            store<V>(to + i * s.in, v, count);
                            if (places) Whole<V>::store(places + i * s.in, at, count);
                        }
                    });
                }
            }
    }
}

template <class V> void max_pool(const Shape& s, const T* x, Int stride, T* out, uint8_t* index, Int threads) {
    (s.size == 3 ? max_pool_of<3, V> : max_pool_of<0, V>)(s, x, stride, out, index, threads);
}

// Adds v where it was taken from.
template <int K, class V> INLINE void give_back(V* corner, Int width, Int size, V v, typename Whole<V>::I chosen) {
    const int k = K ? K : int(size);
    const V zero = {};
#pragma GCC unroll 3
    for (int i = 0; i < k; i++)
#pragma GCC unroll 3
        for (int j = 0; j < k; j++) corner[i * width + j] += chosen == Whole<V>::all(i * k + j) ? v : zero;
}

template <class V> void max_pool_backward(const Shape& s, const T* g, Int stride, const uint8_t* index, T* dx, Int threads) {
    constexpr Int L = sizeof(V) / sizeof(T);
    typedef typename Whole<V>::I I;
    const Int rows = s.out_height(), columns = s.out_width(), pad = s.size / 2, width = s.width + 2 * pad;
    const Int plane = (s.height + 2 * pad) * width;
    threads = std::max<Int>(1, std::min(threads, s.images));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        V* to = static_cast<V*>(scratch.at_least(sizeof(V) * plane));
        const Share own = own_share(s.images);
        for (Int n = own.first; n < own.last; n++)
            for (Int b = 0; b < s.in; b += L) {
                const Int lanes = std::min(L, s.in - b);
                std::memset(to, 0, sizeof(V) * plane);
                for (Int r = 0; r < rows; r++)
                    for (Int i = 0; i < columns; i++) {
                        const Int at = (n * rows + r) * columns + i;
                        const I chosen = Whole<V>::load(index + at * s.in + b, lanes);
                        const V v = load<V>(g + at * stride + b, lanes);
                        V* corner = to + r * s.stride * width + i * s.stride;
                        if (s.size == 3) give_back<3>(corner, width, s.size, v, chosen);
                        else give_back<0>(corner, width, s.size, v, chosen);
                    }
                for (Int r = 0; r < s.height; r++)
                    for (Int i = 0; i < s.width; i++)
                        store<V>(dx + ((n * s.height + r) * s.width + i) * s.in + b, to[(r + pad) * width + i + pad], lanes);
            }
    }
}

// The padding does not count: each output is the sum over its window, by one depthwise convolution with ones, over how much lies inside.
template <class V> void avg_pool(const Shape& s, const T* x, Int stride, T* out, Int threads) {
    constexpr Int L = sizeof(V) / sizeof(T);
    const Windows vertical(s.height, s.size, s.stride), horizontal(s.width, s.size, s.stride);
    const Int rows = s.out_height(), columns = s.out_width(), pad = s.size / 2, width = s.width + 2 * pad;
    const Int plane = (s.height + 2 * pad) * width, taps = s.size * s.size;
    threads = std::max<Int>(1, std::min(threads, s.images));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        V *planes = static_cast<V*>(scratch.at_least(sizeof(V) * (plane + taps + columns))), *ones = planes + plane, *line = ones + taps;
        std::memset(planes, 0, sizeof(V) * plane);
        std::fill(ones, ones + taps, V{} + T(1));
        const Share own = own_share(s.images);
        for (Int n = own.first; n < own.last; n++)
            for (Int b = 0; b < s.in; b += L) {
                const Int lanes = std::min(L, s.in - b);
                for (Int r = 0; r < s.height; r++)
                    for (Int i = 0; i < s.width; i++)
                        planes[(r + pad) * width + i + pad] = load<V>(x + ((n * s.height + r) * s.width + i) * stride + b, lanes);
                for (Int r = 0; r < rows; r++) {
                    depthwise_area(planes + r * s.stride * width, ones, s.size, width, Int(1), s.stride, Int(0), Int(1), line, Int(0), columns);
                    for (Int i = 0; i < columns; i++)
                        store<V>(out + ((n * rows + r) * columns + i) * s.in + b,
                                 line[i] * (T(1) / (vertical.counts[r] * horizontal.counts[i])), lanes);
                }
            }
    }
}

template <class V> void avg_pool_backward(const Shape& s, const T* g, Int stride, T* dx, Int threads) {
    constexpr Int L = sizeof(V) / sizeof(T);
    const Windows vertical(s.height, s.size, s.stride), horizontal(s.width, s.size, s.stride);
    const Int rows = s.out_height(), columns = s.out_width(), pad = s.size / 2;
    // where outputs stand among the inputs; between them zeros
    const Int width = s.width + 2 * pad, plane = (s.height + 2 * pad) * width, taps = s.size * s.size;
    threads = std::max<Int>(1, std::min(threads, s.images));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        V *planes = static_cast<V*>(scratch.at_least(sizeof(V) * (plane + taps + s.width))), *ones = planes + plane, *line = ones + taps;
        std::memset(planes, 0, sizeof(V) * plane);
        std::fill(ones, ones + taps, V{} + T(1));
        const Share own = own_share(s.images);
        for (Int n = own.first; n < own.last; n++)
            for (Int b = 0; b < s.in; b += L) {
                const Int lanes = std::min(L, s.in - b);
                for (Int r = 0; r < rows; r++)
                    for (Int i = 0; i < columns; i++)
                        planes[(r * s.stride + pad) * width + i * s.stride + pad] =
                            load<V>(g + ((n * rows + r) * columns + i) * stride + b, lanes)
                            * (T(1) / (vertical.counts[r] * horizontal.counts[i]));
                for (Int r = 0; r < s.height; r++) {
                    depthwise_area(planes + r * width, ones, s.size, width, Int(1), Int(1), Int(0), Int(1), line, Int(0), s.width);
                    for (Int i = 0; i < s.width; i++)
                        store<V>(dx + ((n * s.height + r) * s.width + i) * s.in + b, line[i], lanes);
                }
            }
    }
}

typedef Simd<WIDE>::V Full;
typedef Simd<(WIDE / sizeof(T) >= 8 ? WIDE / 2 : WIDE)>::V Half;

// Vectors of half the width where whole ones would waste more lanes.
bool narrow(Int channels) {
    constexpr Int L = WIDE / sizeof(T);
    return L >= 8 && blocks(channels, L / 2) * (L / 2) < blocks(channels, L) * L && channels < L;
}

// Arguments come as one array of 64-bit numbers, pointers among them.
#define POINTER(type, at) reinterpret_cast<type*>(a[at])

// Numbers that describe a stage, on the way there and back. The last but one says with which terms it is computed, the last one its turn among
// them: those of one turn do not wait for one another.
constexpr Int ROW = 24, BACKWARD_ROW = 32;

Forward forward_row(const int64_t* a, const double* rules) {
    return {{a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]}, POINTER(T, 8), a[9], {POINTER(T, 10), POINTER(T, 11), POINTER(T, 12), POINTER(T, 13)},
            POINTER(T, 14), POINTER(T, 15), POINTER(T, 16), POINTER(T, 17), POINTER(T, 18),
            {POINTER(T, 19), POINTER(T, 20), rules ? rules + a[21] : nullptr}, {}};
}

Backward backward_row(const int64_t* a) {
    return {{a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]}, POINTER(T, 8), a[9], {POINTER(T, 10), POINTER(T, 11), POINTER(T, 12), POINTER(T, 13)},
            {POINTER(T, 15), a[16], POINTER(T, 17), POINTER(T, 18), POINTER(T, 19), POINTER(T, 20), a[21] != 0},
            POINTER(T, 22), POINTER(T, 23), POINTER(T, 24), a[25] != 0, POINTER(T, 26), POINTER(T, 27), a[14] != 0, POINTER(T, 28), POINTER(T, 29),
            {}, {}};
}

// Goes through rows that stand one after the other as long as they are of terms `group`: those of one turn that vectors of one width suit are
// computed together.
template <Int SIZE, class S, class Make, class Run>
void in_turns(const int64_t*& rows, const int64_t* end, Int group, Make make, Run run) {
    std::vector<S> stages;
    while (rows < end && rows[SIZE - 2] == group) {
        const Int turn = rows[SIZE - 1];
        const bool half = narrow(std::max(rows[3], rows[4]));
        for (; rows < end && rows[SIZE - 2] == group && rows[SIZE - 1] == turn && narrow(std::max(rows[3], rows[4])) == half; rows += SIZE)
            stages.push_back(make(rows));
        run(stages, half);
        stages.clear();
    }
}

void run_forward(const int64_t*& rows, const int64_t* end, Int group, const double* rules, Int threads) {
    in_turns<ROW, Forward>(rows, end, group, [&](const int64_t* a) { return forward_row(a, rules); },
                           [&](std::vector<Forward>& s, bool half) { (half ? stages_forward<Half> : stages_forward<Full>)(s, threads); });
}

void run_backward(const int64_t*& rows, const int64_t* end, Int group, Int threads) {
    in_turns<BACKWARD_ROW, Backward>(rows, end, group, backward_row, [&](std::vector<Backward>& s, bool half) {
        (half ? stages_backward<Half> : stages_backward<Full>)(s, threads);
    });
}

}  // namespace

extern "C" {

int supernet_real_bytes() { return sizeof(T); }
int supernet_vector_bytes() { return WIDE; }

// A sum: a few terms at a time, their stages and then the mix of their values, while these are in the caches. Rows of 24 numbers, see
// native.py.
void supernet_sum(const int64_t* call) {
    const int64_t *a = call + 3, *rows = reinterpret_cast<const int64_t*>(call[1]), *const end = rows + ROW * call[0];
    const Int parts = a[3];
    auto mix = narrow(a[2]) ? mix_forward<Half> : mix_forward<Full>;
    for (Int begin = 0; begin < parts; begin += GROUP) {
        run_forward(rows, end, begin / GROUP, reinterpret_cast<const double*>(call[2]), call[9]);
        mix(a[0], a[1], a[2], begin, std::min(begin + GROUP, parts), POINTER(const Part, 4), POINTER(T, 5), a[6]);
    }
}

// The way back, as many terms at a time: what arrives at their values, and how it goes on. Rows of 32 numbers, which are stages, or (no
// outputs) a term's value that is an input. Values that were not kept are computed again before, by rows as those of `supernet_sum`, without
// their moments.
void supernet_sum_backward(const int64_t* call) {
    const int64_t *a = call, *rows = reinterpret_cast<const int64_t*>(call[13]), *const end = rows + BACKWARD_ROW * call[12];
    const int64_t *again = reinterpret_cast<const int64_t*>(call[16]), *const again_end = again + ROW * call[15];
    const Int images = a[0], pixels = a[1], channels = a[2], parts = a[3], threads = a[14];
    const Part* part = POINTER(const Part, 4);
    const int64_t* flags = POINTER(const int64_t, 5);
    const bool half = narrow(channels);
    std::vector<double> of_g(images * channels), of_part(GROUP * images * channels);
    (half ? gradient_sums<Half> : gradient_sums<Full>)(images, pixels, channels, POINTER(T, 6), a[7], of_g.data(), threads);
    for (Int begin = 0; begin < parts; begin += GROUP) {
        const Int count = std::min(GROUP, parts - begin);
        run_forward(again, again_end, begin / GROUP, nullptr, threads);
        std::fill(of_part.begin(), of_part.end(), 0.0);
        double* wanted[GROUP];
        for (Int i = 0; i < count; i++) wanted[i] = flags[begin + i] & 2 ? of_part.data() + i * images * channels : nullptr;
        (half ? part_sums<Half> : part_sums<Full>)(images, pixels, channels, part + begin, wanted, count, POINTER(T, 6), a[7], threads);
        for (Int k = 0; k < count; k++) {
            const Int i = begin + k;
            part_coefficients(images, pixels, channels, part[i], flags[i], of_g.data(), of_part.data() + k * images * channels,
                              POINTER(T, 8) + 3 * i * channels, POINTER(T, 9) + i, POINTER(T, 10) + i * channels, POINTER(T, 11) + i * channels);
        }
        run_backward(rows, end, begin / GROUP, threads);
    }
}

// rule null: the variance in place of 1 / sqrt(variance + eps).
void supernet_moments(const int64_t* a) {
    auto run = narrow(a[3]) ? moments_of<Half> : moments_of<Full>;
    const Follow follow{POINTER(T, 8), POINTER(T, 9), POINTER(const double, 10)};
    run(a[0], a[1], a[2], a[3], POINTER(T, 4), a[5], follow, POINTER(T, 6), POINTER(T, 7), a[11]);
}

#define POOL const Shape s{a[0], a[1], a[2], a[3], a[3], a[4], a[5], 1}; const bool half = narrow(s.in)

void supernet_max_pool(const int64_t* a) {
    POOL;
    (half ? max_pool<Half> : max_pool<Full>)(s, POINTER(T, 6), a[7], POINTER(T, 8), POINTER(uint8_t, 9), a[10]);
}

void supernet_max_pool_backward(const int64_t* a) {
    POOL;
    (half ? max_pool_backward<Half> : max_pool_backward<Full>)(s, POINTER(T, 6), a[7], POINTER(const uint8_t, 9), POINTER(T, 8), a[10]);
}

void supernet_avg_pool(const int64_t* a) {
    POOL;
    (half ? avg_pool<Half> : avg_pool<Full>)(s, POINTER(T, 6), a[7], POINTER(T, 8), a[10]);
}

void supernet_avg_pool_backward(const int64_t* a) {
    POOL;
    (half ? avg_pool_backward<Half> : avg_pool_backward<Full>)(s, POINTER(T, 6), a[7], POINTER(T, 8), a[10]);
}

}  // extern "C"
