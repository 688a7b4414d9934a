#include <nanobind/nanobind.h>
namespace nb = nanobind;
void bind_nearest(nb::module_&) {}
