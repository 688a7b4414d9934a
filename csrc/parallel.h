// Splitting independent work over threads. What a task computes never depends on which thread runs it,
// so results are the same at any thread count.
#pragma once
#include <cstdint>
#include <functional>

namespace tersor {

// Runs task(i) for i in [0, count) on at most `threads` threads; rethrows the first exception.
void parallel_for(int64_t count, int threads, const std::function<void(int64_t)>& task);

}  // namespace tersor
