// How Python's arrays reach the kernels: CPU, C-contiguous, of one dtype, never copied.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <cstdint>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>

namespace tersor {

template <typename T, int Rank>
using Array = nanobind::ndarray<T, nanobind::ndim<Rank>, nanobind::c_contig, nanobind::device::cpu>;
template <typename T, int Rank>
using Maybe = std::optional<Array<T, Rank>>;

template <typename A>
auto pointer(const std::optional<A>& array) -> decltype(array->data()) {
    return array ? array->data() : nullptr;
}

inline void require(bool good, const char* message) {
    if (!good) throw std::invalid_argument(message);
}

// Every entry of an index array is in [0, limit).
inline void require_indices(const int32_t* values, int64_t count, int64_t limit, const char* what) {
    for (int64_t i = 0; i < count; ++i)
        if (values[i] < 0 || values[i] >= limit)
            throw std::out_of_range(std::string(what) + " " + std::to_string(values[i]) + " is outside 0.." +
                                    std::to_string(limit - 1));
}

// Floats at a 64-byte boundary, zeroed.
class Aligned {
public:
    explicit Aligned(int64_t count)
        : values_(static_cast<float*>(::operator new(sizeof(float) * (count + 16), std::align_val_t(64)))) {
        for (int64_t i = 0; i < count; ++i) values_[i] = 0.0f;
    }
    ~Aligned() { ::operator delete(values_, std::align_val_t(64)); }
    Aligned(const Aligned&) = delete;
    Aligned& operator=(const Aligned&) = delete;
    float* get() const { return values_; }

private:
    float* values_;
};

}  // namespace tersor
