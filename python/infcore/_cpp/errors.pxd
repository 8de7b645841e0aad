# The one translator from the core's exceptions to ours, most derived type first. Every declaration that may throw
# ends in `except +infcore_translate`.
cdef extern from *:
    """
    #include <infcore/base/errors.hpp>
    #include <Python.h>
    #include <new>

    [[maybe_unused]] static void infcore_raise(const char* name, const char* what) {
      PyObject* module = PyImport_ImportModule("infcore.errors");
      if (module == nullptr) return;
      PyObject* type = PyObject_GetAttrString(module, name);
      if (type != nullptr) PyErr_SetString(type, what);
      Py_XDECREF(type);
      Py_DECREF(module);
    }

    [[maybe_unused]] static void infcore_translate() {
      if (PyErr_Occurred()) return;
      try { throw; }
      catch (const infcore::InvalidArgument& e) { infcore_raise("InvalidArgument", e.what()); }
      catch (const infcore::UnknownName& e) { infcore_raise("UnknownName", e.what()); }
      catch (const infcore::QueueFull& e) { infcore_raise("QueueFull", e.what()); }
      catch (const infcore::NoNodeAvailable& e) { infcore_raise("NoNodeAvailable", e.what()); }
      catch (const infcore::DeadlineInfeasible& e) { infcore_raise("DeadlineInfeasible", e.what()); }
      catch (const infcore::ForkedProcess& e) { infcore_raise("ForkedProcess", e.what()); }
      catch (const infcore::Error& e) { infcore_raise("InfcoreError", e.what()); }
      catch (const std::bad_alloc&) { PyErr_NoMemory(); }
      catch (const std::exception& e) { PyErr_SetString(PyExc_RuntimeError, e.what()); }
    }
    """
    void infcore_translate() except *
