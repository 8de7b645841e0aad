// The reader of event logs: whatever the bytes, it ends, and throws nothing but the library's own errors. The first
// byte says how the rest is taken: as a file, or as the body of a block whose header fits, so that records are reached
// too.
#include <infcore/base/errors.hpp>
#include <infcore/sim/replay.hpp>

#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>

namespace {

namespace engine = infcore::engine;

std::string in_a_block(const std::uint8_t* body, std::size_t n_bytes) {
  std::uint8_t header[engine::event_file_header_bytes + engine::event_block_header_bytes];
  std::memcpy(header, engine::event_log_magic.data(), engine::event_log_magic.size());
  engine::store_le(header + 8, engine::event_format_version, 4);
  engine::store_le(header + 12, engine::action_list_version, 4);
  engine::store_le(header + 16, n_bytes, 4);
  engine::store_le(header + 20, engine::block_checksum(0, body, n_bytes), 8);
  std::string file(reinterpret_cast<const char*>(header), sizeof header);
  return file.append(reinterpret_cast<const char*>(body), n_bytes);
}

void read_all(const std::string& file, bool partial) {
  std::istringstream in(file);
  engine::EventReader reader(in, "fuzz.log", partial);
  engine::EventRecord record;
  while (reader.next(record)) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t n_bytes) {
  if (n_bytes == 0) return 0;
  const std::uint8_t how = data[0];
  const std::string file = (how & 1) != 0 ? in_a_block(data + 1, n_bytes - 1) : std::string(data + 1, data + n_bytes);
  try {
    read_all(file, (how & 2) != 0);
  } catch (const infcore::Error&) {
  }
  return 0;
}
