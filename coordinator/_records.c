/* Named tuples that are made without running Python code (records.py).

   What `typing.NamedTuple` gives a class as `__new__` is a function of Python, whose frame and code take more than all
   else that makes a small tuple. Here a class is given a constructor for calls that hand in all of its fields; every
   other call goes the way it always went. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define FIELDS_MAX 12

/* From 3.14 on a tuple has more than its items: its hash, once that is known. What later ones have nobody knows here, so
   there Python goes on making them. */
#define KNOWS_TUPLES (PY_VERSION_HEX < 0x030E0000)

/* Do these names say the last fields, in order? Where they might and are other objects, that is for Python to find. */
static int
are_last_fields(PyObject *type, PyObject *names, Py_ssize_t before)
{
    PyObject *fields = PyObject_GetAttrString(type, "_fields");
    if (fields == NULL) {
        PyErr_Clear();
        return 0;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(names);
    int are = PyTuple_CheckExact(fields) && PyTuple_GET_SIZE(fields) == before + count;
    for (Py_ssize_t at = 0; are && at < count; at++)
        are = PyTuple_GET_ITEM(names, at) == PyTuple_GET_ITEM(fields, before + at);
    Py_DECREF(fields);
    return are;
}

/* As if the class had no constructor of ours. */
static PyObject *
ask_python(PyObject *type, PyObject *const *values, Py_ssize_t count, PyObject *names)
{
    PyObject *made = NULL, *named = NULL;
    PyObject *positional = PyTuple_New(count);
    if (positional == NULL)
        return NULL;
    for (Py_ssize_t at = 0; at < count; at++) {
        Py_INCREF(values[at]);
        PyTuple_SET_ITEM(positional, at, values[at]);
    }
    if (names != NULL) {
        named = PyDict_New();
        if (named == NULL)
            goto end;
        for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(names); at++)
            if (PyDict_SetItem(named, PyTuple_GET_ITEM(names, at), values[count + at]) < 0)
                goto end;
    }
    made = Py_TYPE(type)->tp_call(type, positional, named);
end:
    Py_DECREF(positional);
    Py_XDECREF(named);
    return made;
}

static PyObject *
make(PyObject *type, PyObject *const *values, size_t flags, PyObject *names, Py_ssize_t fields)
{
    Py_ssize_t count = PyVectorcall_NARGS(flags);
    Py_ssize_t named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    if (count + named != fields || (named && !are_last_fields(type, names, count)))
        return ask_python(type, values, count, names);
    PyObject *made = ((PyTypeObject *)type)->tp_alloc((PyTypeObject *)type, fields);
    if (made == NULL)
        return NULL;
    for (Py_ssize_t at = 0; at < fields; at++) {
        Py_INCREF(values[at]);
        PyTuple_SET_ITEM(made, at, values[at]);
    }
    return made;
}

/* One for each number of fields: a constructor is told of its class, and of nothing else. */
#define MAKER(fields)                                                                  \
    static PyObject *                                                                  \
    make_##fields(PyObject *type, PyObject *const *values, size_t flags, PyObject *names) \
    {                                                                                  \
        return make(type, values, flags, names, fields);                               \
    }

MAKER(1) MAKER(2) MAKER(3) MAKER(4) MAKER(5) MAKER(6)
MAKER(7) MAKER(8) MAKER(9) MAKER(10) MAKER(11) MAKER(12)

static const vectorcallfunc MAKERS[FIELDS_MAX + 1] = {
    NULL, make_1, make_2, make_3, make_4, make_5, make_6, make_7, make_8, make_9, make_10, make_11, make_12,
};

/* Is it made as `typing.NamedTuple` makes one, and nothing that somebody built upon such a class? Then its instances
   hold their fields alone, and what makes them does nothing but that: no class body may say another `__new__`. */
static int
is_named_tuple(PyTypeObject *type)
{
    if (type->tp_base != &PyTuple_Type || (type->tp_flags & Py_TPFLAGS_HEAPTYPE) == 0
        || type->tp_basicsize != PyTuple_Type.tp_basicsize || type->tp_init != PyTuple_Type.tp_init
        || Py_TYPE(type) != &PyType_Type)
        return 0;
    PyObject *defaults = PyObject_GetAttrString((PyObject *)type, "_field_defaults");
    int has_them = defaults != NULL && PyDict_CheckExact(defaults);
    PyErr_Clear();
    Py_XDECREF(defaults);
    return has_them;
}

static PyObject *
quicken(PyObject *Py_UNUSED(module), PyObject *type)
{
    if (!PyType_Check(type)) {
        PyErr_Format(PyExc_TypeError, "quicken: expected a class, got %R", type);
        return NULL;
    }
    PyObject *fields = is_named_tuple((PyTypeObject *)type) ? PyObject_GetAttrString(type, "_fields") : NULL;
    if (fields == NULL || !PyTuple_CheckExact(fields)) {
        PyErr_Clear();
        Py_XDECREF(fields);
        PyErr_Format(PyExc_TypeError, "quicken: expected a class of NamedTuple, got %R", type);
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(fields);
    Py_DECREF(fields);
    if (!KNOWS_TUPLES || count < 1 || count > FIELDS_MAX)
        Py_RETURN_FALSE;
    ((PyTypeObject *)type)->tp_vectorcall = MAKERS[count];
    Py_RETURN_TRUE;
}

static PyMethodDef methods[] = {
    {"quicken", quicken, METH_O, "See records.py."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_records",
    .m_size = 0,
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__records(void)
{
    return PyModuleDef_Init(&definition);
}
