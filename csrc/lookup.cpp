// A linear layer straight from codes: out[b, r] = sum over m, j of <C_m[codes[m, j, r]], x[b, j]>, by tables of the
// inner products of codewords with the short vectors of the input. A position is a pair (m, j), in storage order.
// The order of the sums is the twin's: over dimensions; from zero over kGroup positions; from zero over those sums.
#include <algorithm>
#include <cstring>
#include <memory>

#include "arrays.h"
#include "parallel.h"

namespace nb = nanobind;

namespace tersor {
namespace {

constexpr int64_t kSize = 256;           // entries of a table: whatever the byte, it has one
constexpr int64_t kGroup = 64;           // positions of a task
constexpr int64_t kRows = 4096;          // rows of a task: enough to be worth the tables, few enough for the caches
constexpr int64_t kAhead = 128;          // bytes of codes
constexpr int64_t kPerThread = 1 << 19;  // lookups that are worth a thread

// Rows of x that are done together lie side by side, so that one load looks all of them up.
template <int Lanes>
struct Side {
    typedef float Value __attribute__((vector_size(4 * Lanes)));
    static float& lane(Value* values, int64_t i, int64_t b) { return reinterpret_cast<float*>(values)[i * Lanes + b]; }
};
template <>
struct Side<1> {
    typedef float Value;
    static float& lane(Value* values, int64_t i, int64_t) { return values[i]; }
};
template <int Lanes>
using Value = typename Side<Lanes>::Value;

struct Layer {
    const uint8_t* codes;    // [positions, rows]
    const float* codebooks;  // [M, K, d]
    int64_t stages, inputs, rows, size, dims;
    int64_t positions = stages * inputs;
    int64_t groups() const { return (positions + kGroup - 1) / kGroup; }
};

// One position's table: table[k] = (C[k][0] * x[0] + C[k][1] * x[1]) + ...
template <int Lanes, int64_t Fixed>
void build(const Value<Lanes>* __restrict words, const Value<Lanes>* __restrict x, int64_t any,
           Value<Lanes>* __restrict table) {
    const int64_t dims = Fixed > 0 ? Fixed : any;
    for (int64_t k = 0; k < kSize; ++k) {
        Value<Lanes> sum = words[k] * x[0];
        for (int64_t i = 1; i < dims; ++i) sum += words[i * kSize + k] * x[i];
        table[k] = sum;
    }
}

// sums[r] = (sums[r] + table_0[codes_0[r]]) + table_1[codes_1[r]] ... for `Count` positions. AVX2's gathers are slower.
template <int Lanes, int Count>
void add(const Value<Lanes>* __restrict table, const uint8_t* __restrict codes, int64_t stride, int64_t rows,
         Value<Lanes>* __restrict sums) {
    constexpr int step = 8;  // rows whose sums are in registers
    int64_t r = 0;
    for (; r + step <= rows; r += step) {
        // Every position's row is a new page, which the processor's own prefetching starts late on.
        __builtin_prefetch(codes + r / step % Count * stride + r + kAhead);
        Value<Lanes> sum[step];
#pragma GCC unroll 8
        for (int i = 0; i < step; ++i) sum[i] = sums[r + i];
#pragma GCC unroll 1  // unrolled, all codes are unpacked first, to the stack
        for (int p = 0; p < Count; ++p) {
            const Value<Lanes>* here = table + p * kSize;
            uint64_t bytes;
            std::memcpy(&bytes, codes + p * stride + r, step);
#pragma GCC unroll 8
            for (int i = 0; i < step; i += 2) {
                sum[i] += here[bytes & 255];
                sum[i + 1] += here[bytes >> 8 & 255];
                bytes >>= 16;
                asm("" : "+r"(bytes));  // one shift for two codes, and not one for each from the beginning
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < step; ++i) sums[r + i] = sum[i];
    }
    for (; r < rows; ++r)
        for (int p = 0; p < Count; ++p) sums[r] += table[p * kSize + codes[p * stride + r]];
}

void require_codes(const uint8_t* codes, int64_t count, int64_t size) {
    uint8_t highest = 0;
    for (int64_t r = 0; r < count; ++r) highest = std::max(highest, codes[r]);
    if (highest >= size)
        throw std::out_of_range("code " + std::to_string(highest) + " is outside 0.." + std::to_string(size - 1));
}

// The sums of one group's positions for the rows from `row`.
template <int Lanes, int64_t Fixed>
void add_group(const Layer& l, const Value<Lanes>* words, const Value<Lanes>* x, int64_t group, int64_t row,
               Value<Lanes>* sums) {
    constexpr int chunk = Lanes == 1 ? 8 : 4;  // positions whose tables are in the L1 cache
    alignas(64) Value<Lanes> table[chunk * kSize];
    const int64_t rows = std::min(kRows, l.rows - row), end = std::min((group + 1) * kGroup, l.positions);
    std::fill_n(sums, rows, Value<Lanes>{});
    for (int64_t first = group * kGroup; first < end; first += chunk) {
        const int64_t count = std::min<int64_t>(chunk, end - first);
        const uint8_t* codes = l.codes + first * l.rows + row;
        for (int64_t i = 0; i < count; ++i) {
            const int64_t stage = (first + i) / l.inputs, input = (first + i) % l.inputs;
            if (l.size < kSize) require_codes(codes + i * l.rows, rows, l.size);
            build<Lanes, Fixed>(words + stage * l.dims * kSize, x + input * l.dims, l.dims, table + i * kSize);
        }
        if (count == chunk)
            add<Lanes, chunk>(table, codes, l.rows, rows, sums);
        else
            for (int64_t i = 0; i < count; ++i)
                add<Lanes, 1>(table + i * kSize, codes + i * l.rows, l.rows, rows, sums);
    }
}

template <int Lanes>
auto add_group_of(int64_t dims) {
    switch (dims) {
        case 1: return add_group<Lanes, 1>;
        case 2: return add_group<Lanes, 2>;
        case 3: return add_group<Lanes, 3>;
        case 4: return add_group<Lanes, 4>;
        case 5: return add_group<Lanes, 5>;
        case 6: return add_group<Lanes, 6>;
        case 8: return add_group<Lanes, 8>;
        default: return add_group<Lanes, 0>;
    }
}

// `batch` rows of x, at most `Lanes`: [batch, J * d] into out [batch, rows].
template <int Lanes>
void lookup_rows(const Layer& l, const float* x, int64_t batch, float* out, int threads) {
    const int64_t width = l.inputs * l.dims, groups = l.groups(), tiles = (l.rows + kRows - 1) / kRows;
    const std::unique_ptr<Value<Lanes>[]> inputs(new Value<Lanes>[width]()), sums(new Value<Lanes>[groups * l.rows]);
    const std::unique_ptr<Value<Lanes>[]> words(new Value<Lanes>[l.stages * l.dims * kSize]());
    for (int64_t b = 0; b < batch; ++b)
        for (int64_t i = 0; i < width; ++i) Side<Lanes>::lane(inputs.get(), i, b) = x[b * width + i];
    for (int64_t m = 0; m < l.stages; ++m)
        for (int64_t k = 0; k < l.size; ++k)
            for (int64_t i = 0; i < l.dims; ++i)
                words[(m * l.dims + i) * kSize + k] = l.codebooks[(m * l.size + k) * l.dims + i] - Value<Lanes>{};
    const int64_t worth = l.positions * l.rows / kPerThread;
    const auto run = add_group_of<Lanes>(l.dims);
    parallel_for(groups * tiles, int(std::min<int64_t>(threads, worth)), [&](int64_t i) {
        const int64_t group = i % groups, row = i / groups * kRows;
        run(l, words.get(), inputs.get(), group, row, sums.get() + group * l.rows + row);
    });
    constexpr int64_t tile = 256;
    for (int64_t row = 0; row < l.rows; row += tile) {
        Value<Lanes> total[tile] = {};
        const int64_t rows = std::min(tile, l.rows - row);
        for (int64_t g = 0; g < groups; ++g)
            for (int64_t r = 0; r < rows; ++r) total[r] += sums[g * l.rows + row + r];
        for (int64_t b = 0; b < batch; ++b)
            for (int64_t r = 0; r < rows; ++r) out[b * l.rows + row + r] = Side<Lanes>::lane(total, r, b);
    }
}

void lookup(Array<const uint8_t, 3> codes, Array<const float, 3> codebooks, Array<const float, 2> x,
            Array<float, 2> out, int threads) {
    const int64_t stages = codes.shape(0), inputs = codes.shape(1), rows = codes.shape(2);
    const int64_t size = codebooks.shape(1), dims = codebooks.shape(2), batch = x.shape(0), width = inputs * dims;
    require(int64_t(codebooks.shape(0)) == stages, "codes and codebooks disagree on the stages");
    require(size > 0 && size <= kSize && dims > 0, "codebooks need 1 to 256 codewords of at least one dimension");
    require(int64_t(x.shape(1)) == width, "x and codes disagree on the inputs");
    require(int64_t(out.shape(0)) == batch && int64_t(out.shape(1)) == rows, "out has the wrong shape");
    nb::gil_scoped_release unlocked;
    const Layer layer{codes.data(), codebooks.data(), stages, inputs, rows, size, dims};
    for (int64_t b = 0; b < batch; b += 4) {
        const int64_t here = std::min<int64_t>(4, batch - b);
        auto run = here == 1 ? lookup_rows<1> : lookup_rows<4>;
        run(layer, x.data() + b * width, here, out.data() + b * rows, threads);
    }
}

}  // namespace
}  // namespace tersor

void bind_lookup(nb::module_& m) {
    using namespace nb::literals;
    m.def("lookup", &tersor::lookup, "codes"_a, "codebooks"_a, "x"_a, "out"_a, "threads"_a);
}
