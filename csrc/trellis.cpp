// Trellis-coded quantization with the rate in the search: the Viterbi algorithm over the states of the code,
// each survivor carrying its own running energies, so that every candidate is priced in its true context.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <stdexcept>

#include "lattice.h"
#include "parallel.h"

namespace nb = nanobind;
using namespace tersor;

namespace {

template <class T, int N>
using Array = nb::ndarray<T, nb::numpy, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

struct Survivor {
    double cost;
    Running running;
};

struct Search {
    const float* x;
    float inverse_step;
    const float* weight;     // importance per value, or null
    const float* cost;       // bits of a token: [2 * kContexts, tokens]
    int tokens;
    double lambda;
    int memory;
    std::vector<int> next;

    // Chooses the symbols of one chunk; `out` gets signed magnitudes.
    void run(const int64_t* planes, int64_t count, int64_t begin, int32_t* out) const {
        const int states = 1 << memory;
        const double unreachable = std::numeric_limits<double>::infinity();
        std::vector<Survivor> current(states), following(states);
        std::vector<uint8_t> from;
        std::vector<int32_t> chosen;
        Columns columns;
        int state = 0;
        int64_t base = begin;
        for (int64_t i = 0; i < count; ++i) {
            const Plane p = plane_at(planes + 7 * i);
            columns.reset(p);
            Running running{static_cast<int32_t>(p.mean), static_cast<int32_t>(p.mean)};
            const int64_t step = rows_per_block(p);
            for (int64_t row = 0; row < p.rows; row += step) {
                const int64_t rows = std::min(step, p.rows - row), length = rows * p.cols;
                from.resize(length * states);
                chosen.resize(length * states);
                for (auto& s : current) s.cost = unreachable;
                current[state] = {0.0, running};
                for (int64_t n = 0; n < length; ++n) {
                    for (auto& s : following) s.cost = unreachable;
                    extend(p, columns.mean[n % p.cols], base + n, current, following, &from[n * states],
                           &chosen[n * states]);
                    current.swap(following);
                }
                int best = 0;
                for (int s = 1; s < states; ++s)
                    if (current[s].cost < current[best].cost) best = s;
                state = best;
                running = current[best].running;
                for (int64_t n = length - 1; n >= 0; --n) {
                    out[base + n] = chosen[n * states + best];
                    best = from[n * states + best];
                }
                // `best` is back at the block's first state: replay for the columns' energies.
                for (int64_t n = 0; n < length; ++n) {
                    const int magnitude = std::abs(out[base + n]);
                    columns.add(n % p.cols, level_of(magnitude, best & 1));
                    best = next[best * 2 + (magnitude & 1)];
                }
                columns.close(rows);
                base += length;
            }
        }
    }

    void extend(const Plane& p, int64_t column_mean, int64_t index, const std::vector<Survivor>& current,
                std::vector<Survivor>& following, uint8_t* from, int32_t* chosen) const {
        const float a = std::fabs(x[index] * inverse_step);
        const double w = weight ? weight[index] : 1.0;
        const bool negative = x[index] < 0;
        for (size_t s = 0; s < current.size(); ++s) {
            const Survivor& survivor = current[s];
            if (survivor.cost == std::numeric_limits<double>::infinity()) continue;
            const int quantizer = s & 1;
            const float* bits =
                cost + static_cast<int64_t>(2 * context_at(p, survivor.running, column_mean) + quantizer) * tokens;
            const int floor = static_cast<int>(std::min((a + quantizer) * 0.5f, kMaxMagnitude));
            auto consider = [&](int magnitude) {
                const int token = token_of(magnitude);
                if (token >= tokens) return;
                const int level = level_of(magnitude, quantizer);
                const double error = static_cast<double>(a) - level;
                const double total = survivor.cost + w * (error * error) + lambda * bits[token];
                const int to = next[s * 2 + (magnitude & 1)];
                if (total < following[to].cost) {
                    following[to] = {total, survivor.running};
                    following[to].running.push(level);
                    from[to] = static_cast<uint8_t>(s);
                    chosen[to] = negative ? -magnitude : magnitude;
                }
            };
            consider(0);
            for (int magnitude = std::max(1, floor - 1); magnitude <= floor + 1; ++magnitude) consider(magnitude);
        }
    }
};

void search(Array<const float, 1> x, float inverse_step, std::optional<Array<const float, 1>> weight, Array<const int64_t, 2> planes,
            Array<const int64_t, 1> chunk_planes, Array<const int64_t, 1> chunk_starts, Array<const float, 2> cost,
            double lambda, int memory, int h0, int h1, Array<int32_t, 1> out, int threads) {
    const int64_t chunks = static_cast<int64_t>(chunk_starts.shape(0)) - 1;
    Search s{x.data(), inverse_step, weight ? weight->data() : nullptr, cost.data(), static_cast<int>(cost.shape(1)), lambda, memory,
             transitions(memory, h0, h1)};
    nb::gil_scoped_release release;
    parallel_for(chunks, threads, [&](int64_t c) {
        s.run(planes.data() + 7 * chunk_planes.data()[c], chunk_planes.data()[c + 1] - chunk_planes.data()[c],
              chunk_starts.data()[c], out.data());
    });
}

// Token counts per context, and the bits each plane costs under `cost`, for symbols already chosen.
void measure(Array<const int32_t, 1> symbols, Array<const int64_t, 2> planes, Array<const int64_t, 1> chunk_planes,
             Array<const int64_t, 1> chunk_starts, std::optional<Array<const float, 2>> cost, int memory, int h0, int h1,
             int tokens, Array<int64_t, 3> counts, Array<double, 1> bits, Array<int64_t, 1> levels, int threads) {
    const int64_t chunks = static_cast<int64_t>(chunk_starts.shape(0)) - 1;
    const std::vector<int> next = transitions(memory, h0, h1);
    nb::gil_scoped_release release;
    parallel_for(chunks, threads, [&](int64_t c) {
        const int64_t first = chunk_planes.data()[c], last = chunk_planes.data()[c + 1], begin = chunk_starts.data()[c];
        int64_t plane = first, left = planes.data()[7 * first] * planes.data()[7 * first + 1];
        int64_t* count = counts.data() + c * 2 * kContexts * tokens;
        scan(planes.data() + 7 * first, last - first, next, [&](int64_t index, int context, int quantizer) {
            while (left == 0) {
                ++plane;
                left = planes.data()[7 * plane] * planes.data()[7 * plane + 1];
            }
            --left;
            const int symbol = symbols.data()[begin + index], token = token_of(std::abs(symbol));
            if (token >= tokens) throw std::out_of_range("a symbol's token is outside the table");
            const int64_t cell = static_cast<int64_t>(2 * context + quantizer) * tokens + token;
            ++count[cell];
            if (cost) bits.data()[plane] += cost->data()[cell];
            levels.data()[plane] += std::min(level_of(std::abs(symbol), quantizer), kMaxLevel);
            return symbol;
        });
    });
}

// Levels (signed multiples of the step) that symbols stand for.
void levels(Array<const int32_t, 1> symbols, Array<const int64_t, 1> chunk_starts, int memory, int h0, int h1,
            Array<int32_t, 1> out, int threads) {
    const std::vector<int> next = transitions(memory, h0, h1);
    nb::gil_scoped_release release;
    parallel_for(static_cast<int64_t>(chunk_starts.shape(0)) - 1, threads, [&](int64_t c) {
        int state = 0;
        for (int64_t i = chunk_starts.data()[c]; i < chunk_starts.data()[c + 1]; ++i) {
            const int symbol = symbols.data()[i], magnitude = std::abs(symbol);
            const int level = level_of(magnitude, state & 1);
            out.data()[i] = symbol < 0 ? -level : level;
            state = next[state * 2 + (magnitude & 1)];
        }
    });
}

}  // namespace

void bind_trellis(nb::module_& m) {
    m.def("trellis_search", &search, nb::arg("x"), nb::arg("inverse_step"), nb::arg("weight").none(), nb::arg("planes"), nb::arg("chunk_planes"),
          nb::arg("chunk_starts"), nb::arg("cost"), nb::arg("lam"), nb::arg("memory"), nb::arg("h0"), nb::arg("h1"),
          nb::arg("out"), nb::arg("threads"));
    m.def("trellis_measure", &measure, nb::arg("symbols"), nb::arg("planes"), nb::arg("chunk_planes"),
          nb::arg("chunk_starts"), nb::arg("cost").none(), nb::arg("memory"), nb::arg("h0"), nb::arg("h1"),
          nb::arg("tokens"), nb::arg("counts"), nb::arg("bits"), nb::arg("levels"), nb::arg("threads"));
    m.def("trellis_levels", &levels, nb::arg("symbols"), nb::arg("chunk_starts"), nb::arg("memory"), nb::arg("h0"),
          nb::arg("h1"), nb::arg("out"), nb::arg("threads"));
}
