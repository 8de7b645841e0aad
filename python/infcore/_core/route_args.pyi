# Nothing of it is seen from Python: other extensions cimport what it has.
