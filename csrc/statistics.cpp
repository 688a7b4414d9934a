// Everything the least-squares refit of the codebooks needs. With B the one-hot matrix of the codes [N, M * K] and W the
// weights: B^T W B (cooccurrence), B^T W V (accumulate), and solvers for the normal equations, all in double precision.
// Each sum belongs to one task and runs in a fixed order, whatever the number of threads.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "arrays.h"
#include "lanes.h"
#include "parallel.h"

namespace nb = nanobind;

namespace tersor {
namespace {

void cooccurrence(Array<const int32_t, 2> codes, Maybe<const float, 1> weights, int64_t size, Array<double, 2> out,
                  int threads) {
    const int64_t count = codes.shape(0), stages = codes.shape(1), side = stages * size;
    require(int64_t(out.shape(0)) == side && int64_t(out.shape(1)) == side, "out has the wrong shape");
    require(!weights || int64_t(weights->shape(0)) == count, "weights need one entry per vector");
    require_indices(codes.data(), count * stages, size, "code");
    nb::gil_scoped_release unlocked;
    std::vector<std::pair<int64_t, int64_t>> pairs;
    for (int64_t m = 0; m < stages; ++m)
        for (int64_t other = m; other < stages; ++other) pairs.emplace_back(m, other);
    const float* w = pointer(weights);
    double* sums = out.data();
    parallel_for(int64_t(pairs.size()), threads, [&](int64_t task) {
        const auto [m, other] = pairs[task];
        double* block = sums + m * size * side + other * size;
        for (int64_t k = 0; k < size; ++k) std::fill_n(block + k * side, size, 0.0);
        const int32_t* row = codes.data();
        for (int64_t n = 0; n < count; ++n, row += stages)
            block[row[m] * side + row[other]] += w != nullptr ? double(w[n]) : 1.0;
        if (m == other) return;
        double* mirror = sums + other * size * side + m * size;
        for (int64_t k = 0; k < size; ++k)
            for (int64_t l = 0; l < size; ++l) mirror[k * side + l] = block[l * side + k];
    });
}

void accumulate(Array<const int32_t, 2> codes, Array<const float, 2> values, Maybe<const float, 2> weights,
                Array<double, 3> out, int threads) {
    const int64_t count = codes.shape(0), stages = codes.shape(1), dims = values.shape(1), size = out.shape(1);
    require(int64_t(values.shape(0)) == count, "codes and values disagree on the vectors");
    require(int64_t(out.shape(0)) == stages && int64_t(out.shape(2)) == dims, "out has the wrong shape");
    require(!weights || int64_t(weights->shape(0)) == count, "weights need one row per vector");
    const int64_t weight_dims = weights ? weights->shape(1) : 0;
    require(!weights || weight_dims == 1 || weight_dims == dims, "weights need one column, or one per dimension");
    require_indices(codes.data(), count * stages, size, "code");
    nb::gil_scoped_release unlocked;
    parallel_for(stages, threads, [&](int64_t m) {
        double* sums = out.data() + m * size * dims;
        std::fill_n(sums, size * dims, 0.0);
        for (int64_t n = 0; n < count; ++n) {
            double* sum = sums + codes.data()[n * stages + m] * dims;
            const float* value = values.data() + n * dims;
            const float* w = weights ? weights->data() + n * weight_dims : nullptr;
            for (int64_t j = 0; j < dims; ++j)
                sum[j] += w != nullptr ? double(w[weight_dims == 1 ? 0 : j]) * double(value[j]) : double(value[j]);
        }
    });
}

// out[t, m, k] += 1 for every vector of table t (0 without tables) and each of its codes.
void count_codes(Array<const int32_t, 2> codes, Maybe<const int32_t, 1> table, Array<int64_t, 3> out) {
    const int64_t count = codes.shape(0), stages = codes.shape(1), tables = out.shape(0), size = out.shape(2);
    require(int64_t(out.shape(1)) == stages, "out has the wrong shape");
    require(!table || int64_t(table->shape(0)) == count, "table needs one entry per vector");
    require_indices(codes.data(), count * stages, size, "code");
    if (table) require_indices(table->data(), count, tables, "table");
    nb::gil_scoped_release unlocked;
    for (int64_t n = 0; n < count; ++n) {
        int64_t* sums = out.data() + (table ? table->data()[n] : 0) * stages * size;
        for (int64_t m = 0; m < stages; ++m) ++sums[m * size + codes.data()[n * stages + m]];
    }
}

// One dimension's (B^T W B + ridge I) delta = B^T W r by conjugate gradients with a Jacobi preconditioner, never forming
// the matrix: N * M additions each way per step. Starts at zero, so every step lowers the weighted squared error.
class Conjugate {
public:
    Conjugate(const int32_t* codes, int64_t count, int64_t stages, int64_t size)
        : codes_(codes), count_(count), stages_(stages), size_(size), side_(stages * size) {}

    void solve(const float* r, const float* w, int64_t stride, double ridge, int64_t steps, double* delta,
               int64_t delta_stride) const {
        std::vector<double> weights(count_), residual(side_, 0.0), diagonal(side_, ridge), z(side_), p(side_), q(side_),
            x(side_, 0.0);
        for (int64_t n = 0; n < count_; ++n) {
            weights[n] = w != nullptr ? double(w[n * stride]) : 1.0;
            for (int64_t m = 0; m < stages_; ++m) {
                const int64_t at = m * size_ + codes_[n * stages_ + m];
                residual[at] += weights[n] * double(r[n * stride]);
                diagonal[at] += weights[n];
            }
        }
        for (int64_t i = 0; i < side_; ++i) p[i] = z[i] = residual[i] / diagonal[i];
        double rho = dot(residual, z);
        const double enough = rho * 1e-16;
        for (int64_t step = 0; step < steps && rho > enough; ++step) {
            multiply(weights, ridge, p, q);
            const double alpha = rho / dot(p, q);
            for (int64_t i = 0; i < side_; ++i) {
                x[i] += alpha * p[i];
                residual[i] -= alpha * q[i];
                z[i] = residual[i] / diagonal[i];
            }
            const double next = dot(residual, z);
            const double beta = next / rho;
            for (int64_t i = 0; i < side_; ++i) p[i] = z[i] + beta * p[i];
            rho = next;
        }
        for (int64_t i = 0; i < side_; ++i) delta[i * delta_stride] = x[i];
    }

private:
    static double dot(const std::vector<double>& a, const std::vector<double>& b) {
        double sum = 0.0;
        for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
        return sum;
    }

    void multiply(const std::vector<double>& weights, double ridge, const std::vector<double>& p,
                  std::vector<double>& q) const {
        for (int64_t i = 0; i < side_; ++i) q[i] = ridge * p[i];
        for (int64_t n = 0; n < count_; ++n) {
            const int32_t* row = codes_ + n * stages_;
            double sum = 0.0;
            for (int64_t m = 0; m < stages_; ++m) sum += p[m * size_ + row[m]];
            sum *= weights[n];
            for (int64_t m = 0; m < stages_; ++m) q[m * size_ + row[m]] += sum;
        }
    }

    const int32_t* codes_;
    int64_t count_, stages_, size_, side_;
};

void conjugate_refit(Array<const int32_t, 2> codes, Array<const float, 2> residuals, Maybe<const float, 2> weights,
                     double ridge, int64_t steps, Array<double, 3> delta, int threads) {
    const int64_t count = codes.shape(0), stages = codes.shape(1), dims = residuals.shape(1), size = delta.shape(1);
    require(int64_t(residuals.shape(0)) == count, "codes and residuals disagree on the vectors");
    require(int64_t(delta.shape(0)) == stages && int64_t(delta.shape(2)) == dims, "delta has the wrong shape");
    require(!weights || (int64_t(weights->shape(0)) == count && int64_t(weights->shape(1)) == dims),
            "weights need the shape of the residuals");
    require(ridge > 0.0, "the ridge must be positive");
    require_indices(codes.data(), count * stages, size, "code");
    nb::gil_scoped_release unlocked;
    const Conjugate system(codes.data(), count, stages, size);
    const float* w = pointer(weights);
    parallel_for(dims, threads, [&](int64_t j) {
        system.solve(residuals.data() + j, w != nullptr ? w + j : nullptr, dims, ridge, steps, delta.data() + j, dims);
    });
}

// ---- Cholesky ----

constexpr int64_t kPanel = 64;

// Lower factor of the symmetric positive definite `a` [side, side], in place, panel by panel. Every entry receives its
// updates in ascending order of columns, so tiles and threads do not change the result.
void factor(double* a, int64_t side, int threads) {
    const Lanes& set = lanes();
    std::vector<double> turned;
    for (int64_t first = 0; first < side; first += kPanel) {
        const int64_t last = std::min(first + kPanel, side), depth = last - first, below = side - last;
        for (int64_t j = first; j < last; ++j) {
            double pivot = a[j * side + j];
            for (int64_t k = first; k < j; ++k) pivot -= a[j * side + k] * a[j * side + k];
            if (!(pivot > 0.0)) throw std::invalid_argument("the matrix is not positive definite");
            a[j * side + j] = pivot = std::sqrt(pivot);
            for (int64_t i = j + 1; i < last; ++i) {
                double entry = a[i * side + j];
                for (int64_t k = first; k < j; ++k) entry -= a[i * side + k] * a[j * side + k];
                a[i * side + j] = entry / pivot;
            }
        }
        if (below == 0) return;
        turned.resize(depth * below);
        const int64_t tiles = (below + kPanel - 1) / kPanel;
        parallel_for(tiles, threads, [&](int64_t tile) {
            const int64_t start = last + tile * kPanel, end = std::min(start + kPanel, side);
            for (int64_t j = first; j < last; ++j)
                for (int64_t i = start; i < end; ++i) {
                    double entry = a[i * side + j];
                    for (int64_t k = first; k < j; ++k) entry -= a[i * side + k] * a[j * side + k];
                    entry /= a[j * side + j];
                    a[i * side + j] = entry;
                    turned[(j - first) * below + i - last] = entry;
                }
        });
        parallel_for(tiles, threads, [&](int64_t tile) {
            const int64_t start = last + tile * kPanel, end = std::min(start + kPanel, side);
            set.rank_update(a + start * side + last, a + start * side + first, side, turned.data(), below, end - start,
                            end - last, depth);
        });
    }
}

void solve_spd(Array<double, 2> matrix, Array<double, 2> right, int threads) {
    const int64_t side = matrix.shape(0), dims = right.shape(1);
    require(int64_t(matrix.shape(1)) == side && int64_t(right.shape(0)) == side, "matrix and right side disagree in shape");
    nb::gil_scoped_release unlocked;
    double* a = matrix.data();
    double* x = right.data();
    factor(a, side, threads);
    for (int64_t i = 0; i < side; ++i) {
        for (int64_t k = 0; k < i; ++k)
            for (int64_t j = 0; j < dims; ++j) x[i * dims + j] -= a[i * side + k] * x[k * dims + j];
        for (int64_t j = 0; j < dims; ++j) x[i * dims + j] /= a[i * side + i];
    }
    for (int64_t i = side - 1; i >= 0; --i) {
        for (int64_t j = 0; j < dims; ++j) x[i * dims + j] /= a[i * side + i];
        for (int64_t k = 0; k < i; ++k)
            for (int64_t j = 0; j < dims; ++j) x[k * dims + j] -= a[i * side + k] * x[i * dims + j];
    }
}

}  // namespace
}  // namespace tersor

void bind_statistics(nb::module_& m) {
    using namespace nb::literals;
    m.def("cooccurrence", &tersor::cooccurrence, "codes"_a, "weights"_a.none(), "size"_a, "out"_a, "threads"_a);
    m.def("accumulate", &tersor::accumulate, "codes"_a, "values"_a, "weights"_a.none(), "out"_a, "threads"_a);
    m.def("count_codes", &tersor::count_codes, "codes"_a, "table"_a.none(), "out"_a);
    m.def("conjugate_refit", &tersor::conjugate_refit, "codes"_a, "residuals"_a, "weights"_a.none(), "ridge"_a,
          "steps"_a, "delta"_a, "threads"_a);
    m.def("solve_spd", &tersor::solve_spd, "matrix"_a, "right"_a, "threads"_a);
}
