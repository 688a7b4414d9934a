// The problem both searches solve, vector by vector: choose codes i_0..i_{M-1} that minimise
//   sum_j w_j (x_j - sum_m C_m[i_m]_j)^2 + scale * sum_m bias[table][m][i_m]
// where weights w, scale and bias are optional.
#pragma once
#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "arrays.h"
#include "lanes.h"

namespace tersor {

class Problem {
public:
    Problem(Array<const float, 2> vectors, Array<const float, 3> codebooks, Maybe<const float, 2> weights,
            Maybe<const float, 1> scale, Maybe<const float, 3> bias, Maybe<const int32_t, 1> table)
        : set(lanes()),
          count(vectors.shape(0)),
          dims(vectors.shape(1)),
          stages(codebooks.shape(0)),
          size(codebooks.shape(1)),
          row_dims(weights ? 2 * dims : dims),
          padded((size + set.block - 1) / set.block * set.block),
          x_(vectors.data()),
          words_(codebooks.data()),
          weights_(pointer(weights)),
          scale_(pointer(scale)),
          table_(pointer(table)) {
        require(stages > 0 && size > 0 && int64_t(codebooks.shape(2)) == dims, "vectors and codebooks disagree in shape");
        require(!weights || (int64_t(weights->shape(0)) == count && int64_t(weights->shape(1)) == dims),
                "weights need the shape of the vectors");
        require(!scale || int64_t(scale->shape(0)) == count, "scale needs one entry per vector");
        require(!table || int64_t(table->shape(0)) == count, "table needs one entry per vector");
        require(!bias || (int64_t(bias->shape(1)) == stages && int64_t(bias->shape(2)) == size),
                "bias needs the shape [tables, stages, codewords]");
        const int64_t tables = bias ? bias->shape(0) : 0;
        if (bias && table) require_indices(table_, count, tables, "table");
        if (bias) bias_ = std::make_unique<Aligned>(tables * stages * padded);
        for (int64_t row = 0; row < tables * stages; ++row)
            std::copy_n(bias->data() + row * size, size, bias_->get() + row * padded);
        pack();
    }

    const Lanes& set;
    const int64_t count, dims, stages, size, row_dims, padded;

    const float* x(int64_t n) const { return x_ + n * dims; }
    const float* word(int64_t m, int64_t k) const { return words_ + (m * size + k) * dims; }
    float scale(int64_t n) const { return scale_ != nullptr ? scale_[n] : 1.0f; }
    bool biased() const { return bias_ != nullptr; }
    const float* bias(int64_t n, int64_t m) const {
        return bias_->get() + ((table_ != nullptr ? table_[n] : 0) * stages + m) * padded;
    }
    Stage stage(int64_t m) const {
        return {columns_->get() + m * row_dims * padded, offsets_->get() + m * padded, row_dims, padded};
    }

    // The row of the search for what is left of a vector: [w * residual, w], or the residual itself.
    void row(int64_t n, const float* residual, float* out) const {
        if (weights_ == nullptr) {
            std::copy_n(residual, dims, out);
            return;
        }
        const float* w = weights_ + n * dims;
        for (int64_t j = 0; j < dims; ++j) {
            out[j] = w[j] * residual[j];
            out[dims + j] = w[j];
        }
    }

    // x - (((C_0[i_0] + C_1[i_1]) + ...): the sum in the decoder's order.
    void residual(int64_t n, const int32_t* codes, float* out) const {
        const float* first = word(0, codes[0]);
        for (int64_t j = 0; j < dims; ++j) out[j] = first[j];
        for (int64_t m = 1; m < stages; ++m) {
            const float* next = word(m, codes[m]);
            for (int64_t j = 0; j < dims; ++j) out[j] += next[j];
        }
        for (int64_t j = 0; j < dims; ++j) out[j] = x(n)[j] - out[j];
    }

    float cost(int64_t n, const int32_t* codes, float* scratch) const {
        residual(n, codes, scratch);
        float total = 0.0f;
        for (int64_t j = 0; j < dims; ++j) {
            const float square = scratch[j] * scratch[j];
            total += weights_ != nullptr ? weights_[n * dims + j] * square : square;
        }
        if (!biased()) return total;
        float bits = 0.0f;
        for (int64_t m = 0; m < stages; ++m) bits += bias(n, m)[codes[m]];
        return total + scale(n) * bits;
    }

private:
    void pack() {
        columns_ = std::make_unique<Aligned>(stages * row_dims * padded);
        offsets_ = std::make_unique<Aligned>(stages * padded);
        for (int64_t m = 0; m < stages; ++m) {
            float* columns = columns_->get() + m * row_dims * padded;
            float* offsets = offsets_->get() + m * padded;
            std::fill_n(offsets + size, padded - size, std::numeric_limits<float>::infinity());
            for (int64_t k = 0; k < size; ++k) {
                const float* c = word(m, k);
                for (int64_t j = 0; j < dims; ++j) columns[j * padded + k] = -2.0f * c[j];
                for (int64_t j = 0; j < dims; ++j) {
                    if (weights_ != nullptr)
                        columns[(dims + j) * padded + k] = c[j] * c[j];
                    else
                        offsets[k] += c[j] * c[j];
                }
            }
        }
    }

    const float* x_;
    const float* words_;
    const float* weights_;
    const float* scale_;
    const int32_t* table_;
    std::unique_ptr<Aligned> columns_, offsets_, bias_;
};

}  // namespace tersor
