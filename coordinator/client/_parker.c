/* A thread's place to sleep until it is woken, which can wake another as it falls asleep (parker.py).

   What Python's own locks cannot do: wake whoever wants the interpreter only after letting go of it. One that is woken
   before finds it held, sleeps again, and has to be woken twice. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pythread.h>
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

static const double TIMEOUT_S_MAX = 1e6;
static const long NO_BELL = -1;

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

/* Take it upon oneself to wake `next`: nobody else does it from now on, so it must be done whatever happens. NULL where
   it is awake. */
static Parker *
claim(PyObject *next)
{
    Parker *parker = (Parker *)next;
    if (parker->is_unparked)
        return NULL;
    parker->is_unparked = 1;
    Py_INCREF(parker);
    return parker;
}

static PyObject *
parker_park(Parker *self, PyTypeObject *type, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count < 1 || count > 3 || (names != NULL && PyTuple_GET_SIZE(names)))
        return PyErr_Format(
            PyExc_TypeError, "park: expected a timeout, and perhaps whom to wake and where to ring; got %zd", count);
    double timeout_s = PyFloat_AsDouble(args[0]);
    if (timeout_s == -1.0 && PyErr_Occurred())
        return NULL;
    if (!(timeout_s >= 0.0))
        return PyErr_Format(PyExc_ValueError, "park: expected a timeout of at least 0 seconds; got %R", args[0]);
    if (timeout_s > TIMEOUT_S_MAX)
        timeout_s = TIMEOUT_S_MAX;
    long bell = NO_BELL;
    if (count == 3) {
        bell = PyLong_AsLong(args[2]);
        if (bell == -1 && PyErr_Occurred())
            return NULL;
    }
    Parker *next = NULL;
    if (count >= 2 && args[1] != Py_None) {
        if (!Py_IS_TYPE(args[1], type))
            return PyErr_Format(PyExc_TypeError, "park: expected a Parker to wake; got %R", args[1]);
        next = claim(args[1]);
    }
    PyThread_type_lock wakes = next != NULL ? next->lock : NULL;
    double until_s = now_s() + timeout_s;
    PyLockStatus status;
    do {
        Py_BEGIN_ALLOW_THREADS
        if (wakes != NULL)
            PyThread_release_lock(wakes);
        if (bell != NO_BELL && write((int)bell, "", 1) < 0) {
            /* Full, and whoever hears it wakes anyway; or nobody is there. */
        }
        wakes = NULL;
        bell = NO_BELL;
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

/* --- descriptors to wait for --- */

typedef struct {
    PyObject_HEAD
    PyTypeObject *parker; /* The type of whom it may wake. */
    struct pollfd *watched;
    Py_ssize_t count;
} Poll;

static PyObject *
poll_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    PyObject *events;
    if (named != NULL && PyDict_GET_SIZE(named)) {
        PyErr_SetString(PyExc_TypeError, "Poll: expected no names");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O!:Poll", &PyDict_Type, &events))
        return NULL;
    Poll *self = (Poll *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    const Py_ssize_t size = PyDict_GET_SIZE(events);
    self->watched = PyMem_New(struct pollfd, size + 1);
    if (self->watched == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    PyObject *module = PyType_GetModule(type), *descriptor, *wanted;
    self->parker = module != NULL ? (PyTypeObject *)PyObject_GetAttrString(module, "Parker") : NULL;
    if (self->parker == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    for (Py_ssize_t at = 0; PyDict_Next(events, &at, &descriptor, &wanted);) {
        long number = PyLong_AsLong(descriptor), bits = PyLong_AsLong(wanted);
        if (!PyErr_Occurred() && self->count == size)
            PyErr_SetString(PyExc_RuntimeError, "Poll: the descriptors changed while they were taken");
        if (PyErr_Occurred()) {
            Py_DECREF(self);
            return NULL;
        }
        self->watched[self->count++] = (struct pollfd){.fd = (int)number, .events = (short)bits};
    }
    return (PyObject *)self;
}

static void
poll_dealloc(Poll *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyMem_Free(self->watched);
    Py_XDECREF(self->parker);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyObject *
poll_wait(Poll *self, PyObject *const *args, Py_ssize_t count)
{
    if (count < 1 || count > 2)
        return PyErr_Format(PyExc_TypeError, "wait: expected a timeout, and perhaps whom to wake; got %zd", count);
    long timeout_ms = PyLong_AsLong(args[0]);
    if (timeout_ms == -1 && PyErr_Occurred())
        return NULL;
    if (timeout_ms < 0 || timeout_ms > INT_MAX)
        return PyErr_Format(PyExc_ValueError, "wait: expected milliseconds, 0 to 2147483647; got %R", args[0]);
    Parker *next = NULL;
    if (count == 2 && args[1] != Py_None) {
        if (!Py_IS_TYPE(args[1], self->parker))
            return PyErr_Format(PyExc_TypeError, "wait: expected a Parker to wake; got %R", args[1]);
        next = claim(args[1]);
    }
    double until_s = now_s() + (double)timeout_ms * 1e-3;
    int ready, error;
    for (;;) {
        Py_BEGIN_ALLOW_THREADS
        if (next != NULL)
            PyThread_release_lock(next->lock);
        ready = poll(self->watched, (nfds_t)self->count, (int)timeout_ms);
        error = errno;
        Py_END_ALLOW_THREADS
        Py_CLEAR(next);
        if (ready >= 0)
            break;
        if (error != EINTR) {
            errno = error;
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        if (PyErr_CheckSignals() < 0)
            return NULL;
        double left_s = until_s - now_s();
        timeout_ms = left_s > 0.0 ? (long)ceil(left_s * 1e3) : 0;
    }
    PyObject *found = PyList_New(0);
    for (Py_ssize_t at = 0; found != NULL && ready > 0 && at < self->count; at++) {
        if (!self->watched[at].revents)
            continue;
        PyObject *event = Py_BuildValue("ih", self->watched[at].fd, self->watched[at].revents);
        if (event == NULL || PyList_Append(found, event) < 0)
            Py_CLEAR(found);
        Py_XDECREF(event);
    }
    return found;
}

static PyMethodDef poll_methods[] = {
    {"wait", (PyCFunction)(void (*)(void))poll_wait, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot poll_slots[] = {
    {Py_tp_doc, "See parker.py, which is the same in Python."},
    {Py_tp_new, poll_new},
    {Py_tp_dealloc, poll_dealloc},
    {Py_tp_methods, poll_methods},
    {0, NULL},
};

static PyType_Spec poll_spec = {
    .name = "coordinator.client._parker.Poll",
    .basicsize = sizeof(Poll),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = poll_slots,
};

static int
add(PyObject *module, PyType_Spec *of)
{
    PyObject *type = PyType_FromModuleAndSpec(module, of, NULL);
    if (type == NULL)
        return -1;
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}

static int
execute(PyObject *module)
{
    return add(module, &spec) < 0 || add(module, &poll_spec) < 0 ? -1 : 0;
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
