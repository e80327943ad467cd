/* A thread's place to sleep until it is woken, which can wake another as it falls asleep (parker.py).

   What Python's own locks cannot do: wake whoever wants the interpreter only after letting go of it. One that is woken
   before finds it held, sleeps again, and has to be woken twice. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pythread.h>
#include <math.h>
#include <time.h>

static const double TIMEOUT_S_MAX = 1e6;

typedef struct {
    PyObject_HEAD
    PyThread_type_lock lock; /* Held until it is woken. */
    char is_unparked;        /* Under the interpreter's lock. */
} Parker;

static PyObject *
parker_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    if (PyTuple_GET_SIZE(args) || (named != NULL && PyDict_GET_SIZE(named))) {
        PyErr_SetString(PyExc_TypeError, "Parker: expected no arguments");
        return NULL;
    }
    Parker *self = (Parker *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->is_unparked = 0;
    self->lock = PyThread_allocate_lock();
    if (self->lock == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    PyThread_acquire_lock(self->lock, NOWAIT_LOCK);
    return (PyObject *)self;
}

static void
parker_dealloc(Parker *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->lock != NULL) {
        if (!self->is_unparked)
            PyThread_release_lock(self->lock); /* One that is held must not be freed. */
        PyThread_free_lock(self->lock);
    }
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyObject *
parker_unpark(Parker *self, PyObject *Py_UNUSED(ignored))
{
    if (!self->is_unparked) {
        self->is_unparked = 1;
        PyThread_release_lock(self->lock);
    }
    Py_RETURN_NONE;
}

static double
now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static PyObject *
parker_park(Parker *self, PyTypeObject *type, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count < 1 || count > 2 || (names != NULL && PyTuple_GET_SIZE(names)))
        return PyErr_Format(PyExc_TypeError, "park: expected a timeout, and perhaps whom to wake; got %zd", count);
    double timeout_s = PyFloat_AsDouble(args[0]);
    if (timeout_s == -1.0 && PyErr_Occurred())
        return NULL;
    if (!(timeout_s >= 0.0))
        return PyErr_Format(PyExc_ValueError, "park: expected a timeout of at least 0 seconds; got %R", args[0]);
    if (timeout_s > TIMEOUT_S_MAX)
        timeout_s = TIMEOUT_S_MAX;
    Parker *next = NULL;
    if (count == 2 && args[1] != Py_None) {
        if (!Py_IS_TYPE(args[1], type))
            return PyErr_Format(PyExc_TypeError, "park: expected a Parker to wake; got %R", args[1]);
        next = (Parker *)args[1];
        if (next->is_unparked)
            next = NULL;
        else
            next->is_unparked = 1; /* Nobody else wakes it now, so it must be done whatever happens below. */
    }
    PyThread_type_lock wakes = next != NULL ? next->lock : NULL;
    Py_XINCREF(next);
    double until_s = now_s() + timeout_s;
    PyLockStatus status;
    do {
        Py_BEGIN_ALLOW_THREADS
        if (wakes != NULL)
            PyThread_release_lock(wakes);
        wakes = NULL;
        status = PyThread_acquire_lock_timed(self->lock, (PY_TIMEOUT_T)ceil(timeout_s * 1e6), 1);
        Py_END_ALLOW_THREADS
        if (status == PY_LOCK_INTR) {
            if (Py_MakePendingCalls() < 0) { /* A signal's handler raised. */
                Py_XDECREF(next);
                return NULL;
            }
            timeout_s = until_s - now_s();
            if (timeout_s < 0.0)
                timeout_s = 0.0;
        }
    } while (status == PY_LOCK_INTR);
    Py_XDECREF(next);
    if (status == PY_LOCK_ACQUIRED)
        PyThread_release_lock(self->lock); /* Woken once, it is awake for good. */
    return PyBool_FromLong(status == PY_LOCK_ACQUIRED);
}

static PyObject *
parker_is_unparked(Parker *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->is_unparked);
}

static PyMethodDef methods[] = {
    {"park", (PyCFunction)(void (*)(void))parker_park, METH_METHOD | METH_FASTCALL | METH_KEYWORDS, NULL},
    {"unpark", (PyCFunction)parker_unpark, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
    {"is_unparked", (getter)parker_is_unparked, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "See parker.py, which is the same in Python."},
    {Py_tp_new, parker_new},
    {Py_tp_dealloc, parker_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, attributes},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "coordinator.client._parker.Parker",
    .basicsize = sizeof(Parker),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

static int
execute(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (type == NULL)
        return -1;
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_parker",
    .m_size = 0,
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit__parker(void)
{
    return PyModuleDef_Init(&definition);
}
