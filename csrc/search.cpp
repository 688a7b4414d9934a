// Codes for given codebooks: beam search over stages, and iterated local search (ILS) around ICM.
#include <nanobind/stl/vector.h>

#include "parallel.h"
#include "problem.h"

namespace nb = nanobind;

namespace tersor {
namespace {

constexpr int64_t kTile = 128;

// The generator of random perturbations: a hash of a counter (SplitMix64), so a vector's draws depend on nothing else.
uint64_t mix(uint64_t z) {
    z += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

// ---- beam ----

class Beam {
public:
    Beam(const Problem& problem, const std::vector<int64_t>& order, int64_t width)
        : p_(problem),
          order_(order),
          width_(width),
          best_(width),
          index_(width),
          scores_(width * p_.padded),
          rows_(width * p_.row_dims),
          bias_(p_.padded),
          base_(width, 0.0f),
          residuals_(width * p_.dims),
          next_(width * p_.dims),
          codes_(width * p_.stages),
          next_codes_(width * p_.stages) {}

    // Chooses the stages of `order` anew, given the other codes; keeps `codes` unless the cost falls.
    void run(int64_t n, bool keep, int32_t* codes, float* cost) {
        const int64_t dims = p_.dims;
        start(n, codes);
        int64_t live = 1;
        base_[0] = 0.0f;
        for (const int64_t m : order_) {
            for (int64_t i = 0; i < live; ++i)
                p_.row(n, &residuals_[i * dims], rows_.get() + i * p_.row_dims);
            const float* bias = nullptr;
            if (p_.biased()) {
                const float scale = p_.scale(n);
                const float* row = p_.bias(n, m);
                for (int64_t k = 0; k < p_.padded; ++k) bias_.get()[k] = scale * row[k];
                bias = bias_.get();
            }
            p_.set.scores(p_.stage(m), rows_.get(), live, base_.data(), bias, scores_.get());
            live = p_.set.select(scores_.get(), live * p_.padded, width_, best_.data(), index_.data());
            for (int64_t i = 0; i < live; ++i) {
                const int64_t parent = index_[i] / p_.padded, k = index_[i] % p_.padded;
                const float* word = p_.word(m, k);
                for (int64_t j = 0; j < dims; ++j) next_[i * dims + j] = residuals_[parent * dims + j] - word[j];
                std::copy_n(&codes_[parent * p_.stages], p_.stages, &next_codes_[i * p_.stages]);
                next_codes_[i * p_.stages + m] = int32_t(k);
                base_[i] = best_[i];
            }
            residuals_.swap(next_);
            codes_.swap(next_codes_);
        }
        const float found = p_.cost(n, &codes_[0], &next_[0]);
        if (keep) {
            *cost = p_.cost(n, codes, &next_[0]);
            if (!(found < *cost)) return;
        }
        *cost = found;
        std::copy_n(&codes_[0], p_.stages, codes);
    }

private:
    void start(int64_t n, const int32_t* codes) {
        std::copy_n(codes, p_.stages, &codes_[0]);
        std::copy_n(p_.x(n), p_.dims, &residuals_[0]);
        for (int64_t m = 0; m < p_.stages; ++m) {
            if (std::find(order_.begin(), order_.end(), m) != order_.end()) continue;
            const float* word = p_.word(m, codes[m]);
            for (int64_t j = 0; j < p_.dims; ++j) residuals_[j] -= word[j];
        }
    }

    const Problem& p_;
    const std::vector<int64_t>& order_;
    int64_t width_;
    std::vector<float> best_;
    std::vector<int64_t> index_;
    Aligned scores_, rows_, bias_;
    std::vector<float> base_, residuals_, next_;
    std::vector<int32_t> codes_, next_codes_;
};

void beam_search(Array<const float, 2> vectors, Array<const float, 3> codebooks, Maybe<const float, 2> weights,
                 Maybe<const float, 1> scale, Maybe<const float, 3> bias, Maybe<const int32_t, 1> table,
                 const std::vector<int64_t>& order, int64_t width, bool keep, Array<int32_t, 2> codes,
                 Array<float, 1> cost, int threads) {
    const Problem problem(vectors, codebooks, weights, scale, bias, table);
    require(width > 0 && !order.empty(), "beam needs a positive width and at least one stage");
    for (const int64_t m : order) require(m >= 0 && m < problem.stages, "order names a stage that does not exist");
    require(int64_t(codes.shape(0)) == problem.count && int64_t(codes.shape(1)) == problem.stages &&
                int64_t(cost.shape(0)) == problem.count,
            "outputs have the wrong shape");
    require_indices(codes.data(), problem.count * problem.stages, problem.size, "code");
    nb::gil_scoped_release unlocked;
    parallel_for((problem.count + kTile - 1) / kTile, threads, [&](int64_t tile) {
        Beam beam(problem, order, width);
        for (int64_t n = tile * kTile; n < std::min(problem.count, (tile + 1) * kTile); ++n)
            beam.run(n, keep, codes.data() + n * problem.stages, cost.data() + n);
    });
}

// ---- iterated local search ----

// Iterated conditional modes (Besag 1986) on a tile of vectors that advance together, so that each codeword loaded
// serves several vectors. A vector leaves the tile's active list when a whole sweep changed none of its codes.
class LocalSearch {
public:
    LocalSearch(const Problem& problem, int64_t first, int64_t here)
        : p_(problem),
          first_(first),
          here_(here),
          rows_(here * p_.row_dims),
          residuals_(here * p_.dims),
          trial_(here * p_.stages),
          position_(here, 0),
          quiet_(here),
          active_(here),
          found_(here),
          score_(here),
          scale_(here),
          bias_(here),
          scratch_(p_.dims) {}

    void run(int32_t* codes, float* cost, int64_t sweeps, int64_t restarts, int64_t changes, uint64_t seed) {
        const int64_t stages = p_.stages;
        for (int64_t i = 0; i < here_; ++i) cost[i] = p_.cost(first_ + i, codes + i * stages, &scratch_[0]);
        for (int64_t round = 0; round <= restarts; ++round) {
            std::copy_n(codes, here_ * stages, &trial_[0]);
            for (int64_t i = 0; i < here_ && round > 0; ++i) perturb(i, changes, mix(seed + uint64_t(round)));
            settle(sweeps);
            for (int64_t i = 0; i < here_; ++i) {
                const float found = p_.cost(first_ + i, &trial_[i * stages], &scratch_[0]);
                if (!(found < cost[i])) continue;
                cost[i] = found;
                std::copy_n(&trial_[i * stages], stages, codes + i * stages);
            }
        }
    }

private:
    // Random codes at `changes` random stages; the sweep then starts just after the last one, so that the others
    // answer to the change before it can be undone.
    void perturb(int64_t i, int64_t changes, uint64_t seed) {
        uint64_t state = mix(seed ^ mix(uint64_t(first_ + i)));
        for (int64_t change = 0; change < changes; ++change) {
            state = mix(state);
            const int64_t m = int64_t((state >> 32) % uint64_t(p_.stages));
            trial_[i * p_.stages + m] = int32_t((state & 0xFFFFFFFFull) % uint64_t(p_.size));
            position_[i] = (m + 1) % p_.stages;
        }
    }

    void settle(int64_t sweeps) {
        active_.resize(here_);
        for (int64_t i = 0; i < here_; ++i) {
            active_[i] = i;
            quiet_[i] = 0;
            p_.residual(first_ + i, &trial_[i * p_.stages], &residuals_[i * p_.dims]);
        }
        for (int64_t step = 0; step < sweeps * p_.stages && !active_.empty(); ++step) {
            for (int64_t m = 0; m < p_.stages; ++m) improve(m);
            size_t kept = 0;
            for (const int64_t i : active_) {
                position_[i] = (position_[i] + 1) % p_.stages;
                if (quiet_[i] < p_.stages) active_[kept++] = i;
            }
            active_.resize(kept);
        }
    }

    // The best code of stage m, the others given, for the active vectors whose turn stage m is.
    void improve(int64_t m) {
        const int64_t dims = p_.dims;
        int64_t count = 0;
        for (const int64_t i : active_) {
            if (position_[i] != m) continue;
            const float* word = p_.word(m, trial_[i * p_.stages + m]);
            float* left = &residuals_[i * dims];
            for (int64_t j = 0; j < dims; ++j) left[j] += word[j];
            p_.row(first_ + i, left, rows_.get() + count * p_.row_dims);
            scale_[count] = p_.scale(first_ + i);
            bias_[count] = p_.biased() ? p_.bias(first_ + i, m) : nullptr;
            ++count;
        }
        if (count == 0) return;
        p_.set.nearest(p_.stage(m), rows_.get(), count, scale_.data(), p_.biased() ? bias_.data() : nullptr,
                       found_.data(), score_.data());
        count = 0;
        for (const int64_t i : active_) {
            if (position_[i] != m) continue;
            int32_t& code = trial_[i * p_.stages + m];
            quiet_[i] = code == found_[count] ? quiet_[i] + 1 : 1;
            code = found_[count++];
            const float* word = p_.word(m, code);
            float* left = &residuals_[i * dims];
            for (int64_t j = 0; j < dims; ++j) left[j] -= word[j];
        }
    }

    const Problem& p_;
    const int64_t first_, here_;
    Aligned rows_;
    std::vector<float> residuals_;
    std::vector<int32_t> trial_;
    std::vector<int64_t> position_, quiet_, active_;
    std::vector<int32_t> found_;
    std::vector<float> score_, scale_;
    std::vector<const float*> bias_;
    std::vector<float> scratch_;
};

void local_search(Array<const float, 2> vectors, Array<const float, 3> codebooks, Maybe<const float, 2> weights,
                  Maybe<const float, 1> scale, Maybe<const float, 3> bias, Maybe<const int32_t, 1> table,
                  int64_t sweeps, int64_t restarts, int64_t changes, uint64_t seed, Array<int32_t, 2> codes,
                  Array<float, 1> cost, int threads) {
    const Problem problem(vectors, codebooks, weights, scale, bias, table);
    require(int64_t(codes.shape(0)) == problem.count && int64_t(codes.shape(1)) == problem.stages &&
                int64_t(cost.shape(0)) == problem.count,
            "outputs have the wrong shape");
    require_indices(codes.data(), problem.count * problem.stages, problem.size, "code");
    nb::gil_scoped_release unlocked;
    parallel_for((problem.count + kTile - 1) / kTile, threads, [&](int64_t tile) {
        const int64_t first = tile * kTile, here = std::min(kTile, problem.count - first);
        LocalSearch search(problem, first, here);
        search.run(codes.data() + first * problem.stages, cost.data() + first, sweeps, restarts, changes, seed);
    });
}

}  // namespace
}  // namespace tersor

void bind_search(nb::module_& m) {
    using namespace nb::literals;
    m.def("beam_search", &tersor::beam_search, "vectors"_a, "codebooks"_a, "weights"_a.none(), "scale"_a.none(),
          "bias"_a.none(), "table"_a.none(), "order"_a, "width"_a, "keep"_a, "codes"_a, "cost"_a, "threads"_a);
    m.def("local_search", &tersor::local_search, "vectors"_a, "codebooks"_a, "weights"_a.none(), "scale"_a.none(),
          "bias"_a.none(), "table"_a.none(), "sweeps"_a, "restarts"_a, "changes"_a, "seed"_a, "codes"_a, "cost"_a,
          "threads"_a);
}
