from infcore._core.base cimport TenantNames
from infcore._core.future cimport Future
from infcore._core.workers cimport Workers


cdef class EngineCore(Workers):
    cdef TenantNames tenants
    cdef Future begin(self, object model, object inputs, object work, object version, object tenant, object tier,
                      object deadline_s, object session, object blocks, object key, object require)
    cdef int _push(self, Future future, bint defer) except -1
