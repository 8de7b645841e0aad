#include <infcore/base/errors.hpp>
#include <infcore/route/routing_options.hpp>

#include <algorithm>

namespace infcore::route {
namespace {

std::string quoted(const std::string& text) { return "'" + text + "'"; }

std::string shown(const RoutingOptions::Value& value) {
  if (const auto* number = std::get_if<double>(&value)) return std::to_string(*number);
  if (const auto* text = std::get_if<std::string>(&value)) return quoted(*text);
  std::string list;
  for (const std::string& each : std::get<RoutingOptions::Texts>(value))
    list += (list.empty() ? "" : ", ") + quoted(each);
  return "[" + list + "]";
}

}  // namespace

void RoutingOptions::set(std::string name, Value value) {
  const auto at = std::lower_bound(given_.begin(), given_.end(), name,
                                   [](const auto& pair, const std::string& wanted) { return pair.first < wanted; });
  if (at != given_.end() && at->first == name) {
    at->second = std::move(value);
  } else {
    given_.insert(at, {std::move(name), std::move(value)});
  }
}

const RoutingOptions::Value* RoutingOptions::ask(const char* name) {
  asked_.emplace_back(name);
  const auto found = std::find_if(given_.begin(), given_.end(), [&](const auto& pair) { return pair.first == name; });
  return found == given_.end() ? nullptr : &found->second;
}

double RoutingOptions::number(const char* name, double otherwise, double least, double most) {
  const Value* const value = ask(name);
  if (value == nullptr) return otherwise;
  const auto* const number = std::get_if<double>(value);
  if (number != nullptr && *number >= least && *number <= most) return *number;
  throw InvalidArgument(name, shown(*value), "a number from " + std::to_string(least) + " to " + std::to_string(most));
}

std::string RoutingOptions::text(const char* name, const char* otherwise) {
  const Value* const value = ask(name);
  if (value == nullptr) return otherwise;
  if (const auto* const text = std::get_if<std::string>(value)) return *text;
  throw InvalidArgument(name, shown(*value), "a text");
}

RoutingOptions::Texts RoutingOptions::texts(const char* name) {
  const Value* const value = ask(name);
  if (value == nullptr) return {};
  if (const auto* const text = std::get_if<std::string>(value)) return {*text};
  if (const auto* const texts = std::get_if<Texts>(value)) return *texts;
  throw InvalidArgument(name, shown(*value), "a text or a list of texts");
}

const std::vector<std::pair<std::string, RoutingOptions::Value>>& RoutingOptions::take_all() {
  for (const auto& [name, value] : given_) asked_.push_back(name);
  return given_;
}

void RoutingOptions::check_all_known(std::string_view policy) const {
  for (const auto& [name, value] : given_) {
    if (std::find(asked_.begin(), asked_.end(), name) != asked_.end()) continue;
    std::string known;
    for (const std::string& each : asked_) known += (known.empty() ? "" : ", ") + each;
    throw UnknownName("option of policy " + std::string(policy), name, known.empty() ? "none" : known);
  }
}

}  // namespace infcore::route
