#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace infcore::route {

/// A policy's options as its user gave them, by name. The policy's maker asks for each that it has; what nobody asked
/// for is refused.
class RoutingOptions {
 public:
  using Texts = std::vector<std::string>;
  using Value = std::variant<double, std::string, Texts>;

  static constexpr std::size_t n_max = 64;  ///< options, and texts of one

  /// The last value of a name holds.
  void set(std::string name, Value value);
  /// Throws InvalidArgument for what is no number within [least, most].
  double number(const char* name, double otherwise, double least, double most);
  std::string text(const char* name, const char* otherwise);
  /// One text counts as a list of one.
  Texts texts(const char* name);
  /// Throws UnknownName for an option that was not asked for.
  void check_all_known(std::string_view policy) const;
  /// All of them, for who has options that this cannot know; they count as asked for.
  const std::vector<std::pair<std::string, Value>>& take_all();
  /// As they were given, sorted by name.
  [[nodiscard]] const std::vector<std::pair<std::string, Value>>& given() const noexcept { return given_; }

 private:
  [[nodiscard]] const Value* ask(const char* name);

  std::vector<std::pair<std::string, Value>> given_;
  std::vector<std::string> asked_;
};

}  // namespace infcore::route
