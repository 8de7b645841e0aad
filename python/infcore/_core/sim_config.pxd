from infcore._cpp.sim cimport SimConfig


# A scenario (infcore.sim.scenario_schema.Scenario, checked by its reader) as the core takes it.
cdef SimConfig config_of(object scenario, str policy, object seed, object policy_options=*) except *
