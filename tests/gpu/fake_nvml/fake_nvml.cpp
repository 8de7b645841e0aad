// A libnvidia-ml.so.1 for tests: answers what a text file says at the moment of each call. The file is named by the
// environment variable FAKE_NVML_STATE and has a key and a value a line:
//
//   init 0                   what nvmlInitWithFlags returns
//   slots 0 1                the cards that an init finds, in this order; kept until the last shutdown
//   event 0 79               an XID of slot 0; each line is told once, to event sets made before it was written
//   gpu.0.power 250000       an answer; a key that is not there is NVML_ERROR_NOT_SUPPORTED
//   gpu.0.power !4           an error instead
//   gpu.0.lost 15            every call about the card returns that
//   hang 1                   calls for utilization do not return while it is there
//
// Compiled with -DFAKE_OLD_DRIVER, functions that came later are left out.
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

namespace {

constexpr int success = 0, uninitialized = 1, invalid_argument = 2, not_supported = 3, timeout = 10;
constexpr unsigned n_slots_max = 16;

struct Device {
  unsigned slot;
};
struct EventSet {
  std::size_t n_told;
};
struct State {
  std::map<std::string, std::string> values;
  std::vector<std::pair<unsigned, unsigned long long>> events;
};

Device devices[n_slots_max];
std::mutex guard;  // of what follows
std::vector<unsigned> enumerated;
std::atomic<int> n_inits{0}, n_event_sets{0};

State read_state() {
  State state;
  const char* const path = std::getenv("FAKE_NVML_STATE");
  std::ifstream file(path == nullptr ? "" : path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string key, value;
    words >> key >> std::ws;
    std::getline(words, value);
    if (key == "event") {
      std::istringstream event(value);
      unsigned slot = 0;
      unsigned long long xid = 0;
      event >> slot >> xid;
      state.events.emplace_back(slot, xid);
    } else if (!key.empty()) {
      state.values[key] = value;
    }
  }
  return state;
}

/// The code of an answer that is an error, else success.
int code_of(const std::string& value) { return value[0] == '!' ? std::atoi(value.c_str() + 1) : success; }

/// What the file says of a card's key, as an error code and a text.
int look_up(const Device* device, const std::string& key, std::string& value) {
  if (n_inits == 0) return uninitialized;
  if (device < devices || device >= devices + n_slots_max) return invalid_argument;
  const State state = read_state();
  const std::string card = "gpu." + std::to_string(device->slot) + ".";
  if (const auto lost = state.values.find(card + "lost"); lost != state.values.end()) {
    return std::atoi(lost->second.c_str());
  }
  const auto found = state.values.find(card + key);
  if (found == state.values.end()) return not_supported;
  value = found->second;
  return code_of(value);
}

template <class T>
int number(const Device* device, const std::string& key, T* out) {
  std::string value;
  const int code = look_up(device, key, value);
  if (code == success) *out = static_cast<T>(std::strtoull(value.c_str(), nullptr, 10));
  return code;
}

/// Two numbers that stand side by side.
template <class T>
int pair_of(const Device* device, const std::string& key, T* first, T* second) {
  std::string value;
  const int code = look_up(device, key, value);
  if (code != success) return code;
  std::istringstream(value) >> *first >> *second;
  return success;
}

int text(const Device* device, const std::string& key, char* out, unsigned length) {
  std::string value;
  const int code = look_up(device, key, value);
  if (code == success) std::snprintf(out, length, "%s", value.c_str());
  return code;
}

}  // namespace

extern "C" {

struct Utilization {
  unsigned gpu, memory;
};
struct Memory {
  unsigned long long total, free, used;
};
struct FieldValue {
  std::uint32_t field_id, scope_id;
  std::int64_t timestamp, latency_us;
  unsigned value_type;
  int code;
  std::uint64_t value;
};
struct EventData {
  Device* device;
  unsigned long long type, data;
  unsigned gpu_instance, compute_instance;
};

int fake_nvml_n_inits() { return n_inits; }
int fake_nvml_n_event_sets() { return n_event_sets; }

int nvmlInitWithFlags(unsigned) {
  const State state = read_state();
  if (const auto init = state.values.find("init"); init != state.values.end() && init->second != "0") {
    return std::atoi(init->second.c_str());
  }
  const std::lock_guard hold(guard);
  if (n_inits++ > 0) return success;
  enumerated.clear();
  if (const auto slots = state.values.find("slots"); slots != state.values.end()) {
    std::istringstream words(slots->second);
    for (unsigned slot = 0; words >> slot && slot < n_slots_max;) {
      devices[slot].slot = slot;
      enumerated.push_back(slot);
    }
  }
  return success;
}

int nvmlShutdown() {
  if (n_inits == 0) return uninitialized;
  --n_inits;
  return success;
}

const char* nvmlErrorString(int code) { return code == 15 ? "GPU is lost" : "an error of the fake library"; }

int nvmlSystemGetDriverVersion(char* out, unsigned length) {
  std::snprintf(out, length, "580.42");
  return n_inits == 0 ? uninitialized : success;
}

int nvmlDeviceGetCount_v2(unsigned* out) {
  const std::lock_guard hold(guard);
  *out = static_cast<unsigned>(enumerated.size());
  return n_inits == 0 ? uninitialized : success;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device** out) {
  const std::lock_guard hold(guard);
  if (n_inits == 0) return uninitialized;
  if (index >= enumerated.size()) return invalid_argument;
  *out = &devices[enumerated[index]];
  unsigned there = 0;
  const int code = number(*out, "handle", &there);
  return code == not_supported ? success : code;
}

int nvmlDeviceGetUUID(Device* d, char* out, unsigned length) { return text(d, "uuid", out, length); }
int nvmlDeviceGetName(Device* d, char* out, unsigned length) { return text(d, "name", out, length); }
int nvmlDeviceGetCudaComputeCapability(Device* d, int* major, int* minor) {
  return pair_of(d, "compute_capability", major, minor);
}

int nvmlDeviceGetUtilizationRates(Device* d, Utilization* out) {
  while (read_state().values.count("hang") > 0) usleep(1000);
  return pair_of(d, "utilization", &out->gpu, &out->memory);
}
int nvmlDeviceGetMemoryInfo(Device* d, Memory* out) {
  const int code = pair_of(d, "memory", &out->used, &out->total);
  if (code == success) out->free = out->total - out->used;
  return code;
}
int nvmlDeviceGetPowerUsage(Device* d, unsigned* out) { return number(d, "power", out); }
int nvmlDeviceGetEnforcedPowerLimit(Device* d, unsigned* out) { return number(d, "power_limit", out); }
int nvmlDeviceGetTemperature(Device* d, int sensor, unsigned* out) {
  return sensor == 0 ? number(d, "temperature", out) : invalid_argument;
}
int nvmlDeviceGetClockInfo(Device* d, int type, unsigned* out) {
  return number(d, type == 1 ? "clock_sm" : type == 2 ? "clock_memory" : "clock_other", out);
}
int nvmlDeviceGetCurrentClocksThrottleReasons(Device* d, unsigned long long* out) {
  return number(d, "throttle_reasons", out);
}
int nvmlDeviceGetPcieThroughput(Device* d, int counter, unsigned* out) {
  return number(d, counter == 0 ? "pcie_sent" : "pcie_received", out);
}
int nvmlDeviceGetCurrPcieLinkGeneration(Device* d, unsigned* out) { return number(d, "pcie_generation", out); }
int nvmlDeviceGetCurrPcieLinkWidth(Device* d, unsigned* out) { return number(d, "pcie_width", out); }
int nvmlDeviceGetTotalEccErrors(Device* d, int type, int counter, unsigned long long* out) {
  if (counter != 0) return invalid_argument;  // volatile ones are asked for
  return number(d, type == 0 ? "ecc_corrected" : "ecc_uncorrected", out);
}

int nvmlEventSetCreate(EventSet** out) {
  if (n_inits == 0) return uninitialized;
  *out = new EventSet{read_state().events.size()};
  ++n_event_sets;
  return success;
}
int nvmlDeviceRegisterEvents(Device* d, unsigned long long types, EventSet*) {
  unsigned supported = 0;
  const int code = number(d, "events", &supported);
  return code != success ? code : types == 8 ? success : invalid_argument;
}
int nvmlEventSetFree(EventSet* set) {
  delete set;
  --n_event_sets;
  return success;
}

#ifndef FAKE_OLD_DRIVER
int nvmlEventSetWait_v2(EventSet* set, EventData* out, unsigned timeout_ms) {
  if (n_inits == 0) return uninitialized;
  if (timeout_ms != 0) return invalid_argument;  // whoever samples does not wait
  const State state = read_state();
  if (set->n_told >= state.events.size()) return timeout;
  const auto& [slot, xid] = state.events[set->n_told++];
  *out = EventData{&devices[slot], 8, xid, 0, 0};
  return success;
}

int nvmlDeviceGetCurrentClocksEventReasons(Device* d, unsigned long long* out) {
  return number(d, "throttle_reasons", out);
}
int nvmlDeviceGetTotalEnergyConsumption(Device* d, unsigned long long* out) { return number(d, "energy", out); }
int nvmlDeviceGetMigMode(Device* d, unsigned* now, unsigned* pending) { return pair_of(d, "mig", now, pending); }
int nvmlDeviceGetNvLinkState(Device* d, unsigned link, unsigned* out) {
  return number(d, "link." + std::to_string(link), out);
}

int nvmlDeviceGetFieldValues(Device* d, int n_values, FieldValue* values) {
  for (int i = 0; i < n_values; ++i) {
    FieldValue& v = values[i];
    v.value_type = 3;  // unsigned long long
    v.code = number(d, "field." + std::to_string(v.field_id) + "." + std::to_string(v.scope_id), &v.value);
  }
  return n_inits == 0 ? uninitialized : success;
}
#endif

}  // extern "C"
