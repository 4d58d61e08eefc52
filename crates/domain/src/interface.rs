//! The HTTP interface: its paths and the parameters of each. The bridge reads them; messages and
//! generated SQL write them.

use std::fmt;

/// The only list of parameters.
macro_rules! parameters {
    ($($parameter:ident $name:literal),+ $(,)?) => {
        /// A parameter of a query.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Parameter {
            $(#[doc = concat!("`", $name, "`")] $parameter,)+
        }

        impl Parameter {
            /// All of them.
            pub const ALL: &[Parameter] = &[$(Parameter::$parameter),+];

            /// Its name in a query.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Parameter::$parameter => $name,)+
                }
            }
        }
    };
}

/// The only list of paths: what each is called here, who may call it how, and which parameters it
/// takes.
macro_rules! routes {
    ($($route:ident: $method:literal $path:literal [$($parameter:ident),* $(,)?]),+ $(,)?) => {
        /// A path of the interface.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Route {
            $(#[doc = concat!("`", $method, " ", $path, "`")] $route,)+
        }

        impl Route {
            /// All of them.
            pub const ALL: &[Route] = &[$(Route::$route),+];

            /// The path, with at most one part in braces.
            pub const fn path(self) -> &'static str {
                match self {
                    $(Route::$route => $path,)+
                }
            }

            /// The method. HEAD is accepted where this is GET.
            pub const fn method(self) -> &'static str {
                match self {
                    $(Route::$route => $method,)+
                }
            }

            /// The parameters that it takes.
            pub const fn parameters(self) -> &'static [Parameter] {
                match self {
                    $(Route::$route => &[$(Parameter::$parameter),*],)+
                }
            }
        }
    };
}

parameters! {
    Stream "stream",
    View "view",
    Ack "ack",
    Start "start",
    Mode "mode",
    OnFailure "on_failure",
    MaxRows "max_rows",
    MaxBytes "max_bytes",
    LingerMs "linger_ms",
    WaitMs "wait_ms",
    PollMs "poll_ms",
    From "from",
    To "to",
    Shard "shard",
    Slice "slice",
    UntilPipe "until_pipe",
    Limit "limit",
    Decompress "decompress",
    Split "split",
    Payload "payload",
    Unmarshal "unmarshal",
    Format "format",
}

routes! {
    Streams: "GET" "/v1/streams" [Format],
    Shards: "GET" "/v1/streams/{stream}/shards" [Format],
    Sample: "GET" "/v1/streams/{stream}/sample" [Limit, Decompress, Split, Payload, Unmarshal, Format],
    Records: "GET" "/v1/streams/{stream}/records" [
        From, To, Shard, Slice, UntilPipe, Limit, Decompress, Split, Payload, Unmarshal, Format,
    ],
    Plan: "GET" "/v1/streams/{stream}/records/plan" [
        From, To, Shard, Slice, UntilPipe, Decompress, Split, Format,
    ],
    Next: "GET" "/v1/pipes/{pipe}/next" [
        Stream, View, Ack, Start, Mode, OnFailure, MaxRows, MaxBytes, LingerMs, WaitMs, PollMs,
        Decompress, Split, Payload, Unmarshal, Format,
    ],
    Pipes: "GET" "/v1/pipes" [Format],
    Workers: "GET" "/v1/workers" [Format],
    Seek: "POST" "/v1/pipes/{pipe}/seek" [],
    Ack: "POST" "/v1/pipes/{pipe}/ack" [],
    SeekAny: "POST" "/v1/seek" [],
    End: "POST" "/v1/end" [],
    Metrics: "GET" "/metrics" [],
    Healthz: "GET" "/healthz" [],
    Readyz: "GET" "/readyz" [],
}

impl Route {
    /// The route of a path, and what stands there for the part in braces, with that part's name.
    pub fn of(path: &str) -> Option<(Route, Option<(&'static str, &str)>)> {
        Route::ALL.iter().find_map(|route| Some((*route, route.captured(path)?)))
    }

    /// Whether `path` has this form: `None` if not, else what stands for the part in braces.
    fn captured(self, path: &str) -> Option<Option<(&'static str, &str)>> {
        let (mut parts, mut captured) = (path.split('/'), None);
        for expected in self.path().split('/') {
            let part = parts.next()?;
            match expected.strip_prefix('{').and_then(|e| e.strip_suffix('}')) {
                Some(what) => captured = Some((what, part)),
                None if expected == part => {}
                None => return None,
            }
        }
        parts.next().is_none().then_some(captured)
    }

    /// The path with `name` in place of the part in braces. The name is taken as it is: who needs
    /// it encoded encodes it.
    pub fn with(self, name: &str) -> String {
        let (before, after) = self.around();
        format!("{before}{name}{after}")
    }

    /// The path before and after the part in braces.
    pub fn around(self) -> (&'static str, &'static str) {
        let path = self.path();
        let braces = path.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?.1)));
        braces.unwrap_or((path, ""))
    }

    /// One word for the path, as the label of a metric: its last part.
    pub fn label(self) -> &'static str {
        self.path().rsplit('/').next().unwrap_or_default().trim_matches(['{', '}'])
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_written_is_read_as_the_same_route() {
        for route in Route::ALL {
            let captured = route.path().contains('{').then_some("a.b");
            let path = captured.map_or_else(|| route.path().to_owned(), |name| route.with(name));
            let (found, part) = Route::of(&path).expect(&path);
            assert_eq!((found, part.map(|(_, text)| text)), (*route, captured), "{path}");
        }
        assert_eq!(Route::of("/v1/pipes/orders/next"), Some((Route::Next, Some(("pipe", "orders")))));
        assert_eq!(Route::of("/v1/pipes//next"), Some((Route::Next, Some(("pipe", "")))));
        for none in ["", "/", "/v1", "/v1/pipes/a/next/", "/v1/pipes/a/b/next", "v1/pipes"] {
            assert_eq!(Route::of(none), None, "{none}");
        }
        assert_eq!(Route::Next.around(), ("/v1/pipes/", "/next"));
    }

    #[test]
    fn labels_are_the_last_parts() {
        let labels: Vec<&str> = [Route::Pipes, Route::Plan, Route::SeekAny, Route::Metrics].map(Route::label).to_vec();
        assert_eq!(labels, ["pipes", "plan", "seek", "metrics"]);
    }

    #[test]
    fn every_parameter_is_one_of_a_path() {
        for parameter in Parameter::ALL {
            assert!(Route::ALL.iter().any(|route| route.parameters().contains(parameter)), "{parameter}");
        }
    }
}
