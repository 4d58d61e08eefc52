//! `stack clickhouse-host`: runs the ClickHouse engine from its shared library, as `clickhouse
//! local` would.

use std::ffi::{CString, OsString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// `query_stable_v2` of the library: runs clickhouse-local with these arguments and returns an
/// owned result.
type QueryStable = unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut c_void;

/// Runs the engine until its query ends, which for a listening engine is when the process is
/// terminated.
pub fn run(library: &Path, args: Vec<OsString>) -> Result<i32, String> {
    let shown = library.display();
    let args: Vec<CString> = std::iter::once(OsString::from("clickhouse"))
        .chain(args)
        .map(|argument| CString::new(argument.into_vec()))
        .collect::<Result<_, _>>()
        .map_err(|error| format!("an argument for the engine holds a zero byte: {error}"))?;
    let mut argv: Vec<*mut c_char> = args.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
    let argc = c_int::try_from(argv.len()).map_err(|error| error.to_string())?;
    // C programs may rely on argv[argc] being null.
    argv.push(std::ptr::null_mut());
    // SAFETY: loading runs the library's initialisers. It is the engine that the user installed,
    // checked against a pinned digest by scripts/install.sh, and this process does nothing else.
    let engine = unsafe { libloading::Library::new(library) }
        .map_err(|error| format!("cannot load {shown}: {error}: run scripts/install.sh"))?;
    // SAFETY: the pinned release exports this symbol with exactly this C signature.
    let query = unsafe { engine.get::<QueryStable>(b"query_stable_v2\0") }
        .map_err(|error| format!("{shown} is not the engine library: {error}"))?;
    // SAFETY: `argv` holds `argc` pointers to zero-terminated strings and a final null; `args`
    // outlives the call, and the engine does not write through them. The result is leaked on
    // purpose: the process ends next.
    let result = unsafe { query(argc, argv.as_mut_ptr()) };
    // Unloading would run the engine's finalisers while its threads are still running.
    std::mem::forget(engine);
    if result.is_null() {
        return Err("the engine refused its arguments; its log above says why".to_owned());
    }
    Err("the engine's query ended, although it should listen until it is stopped; its log above says why".to_owned())
}
