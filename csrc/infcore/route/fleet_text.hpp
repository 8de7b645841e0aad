#pragma once
#include <infcore/route/fleet.hpp>

#include <cstdint>
#include <string>

namespace infcore::route {

// Words in shared memory: each string with its length before it. Under the membership lock.

/// Throws InvalidArgument where the node's words are too many for its row.
void check_text(const NodeSpec& spec);
void write_text(const NodeSpec& spec, char* row);
/// Fills in name, kind, zone, location and labels.
void read_text(const char* row, NodeSpec& spec);

}  // namespace infcore::route
