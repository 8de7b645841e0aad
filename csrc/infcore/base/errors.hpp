#pragma once
#include <stdexcept>
#include <string>

namespace infcore {

/// Base of everything the core throws. One Python class each; _cpp/errors.pxd holds the one translator.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// An argument outside what is allowed: names the field, the value and what would do.
struct InvalidArgument : Error {
  InvalidArgument(const std::string& field, const std::string& value, const std::string& allowed)
      : Error(field + " is " + value + "; allowed: " + allowed) {}
};

/// A name that nothing here answers to.
struct UnknownName : Error {
  UnknownName(const std::string& field, const std::string& value, const std::string& known)
      : Error(field + " is '" + value + "'; known: " + known) {}
};

struct QueueFull : Error {
  using Error::Error;
};
struct NoNodeAvailable : Error {
  using Error::Error;
};
struct DeadlineInfeasible : Error {
  using Error::Error;
};
/// Locks, threads and credits do not survive a fork; the child must build its own objects.
struct ForkedProcess : Error {
  using Error::Error;
};

}  // namespace infcore
