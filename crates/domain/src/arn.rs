//! Amazon resource names.

/// `arn:<partition>:<service>:<region>:<account>:<resource>`, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arn<'a> {
    /// `aws`, `aws-cn` and the like.
    pub partition: &'a str,
    /// `kinesis`, `dynamodb`.
    pub service: &'a str,
    /// `eu-west-1`; empty for what belongs to no region.
    pub region: &'a str,
    /// The account's number.
    pub account: &'a str,
    /// What it is there, as `stream/orders` or `table/users/stream/2026-11-21T10:00:00.000`.
    pub resource: &'a str,
}

impl<'a> Arn<'a> {
    /// Takes one apart; `None` if the text is none.
    pub fn parse(text: &'a str) -> Option<Arn<'a>> {
        let mut parts = text.strip_prefix("arn:")?.splitn(5, ':');
        let mut part = || parts.next();
        Some(Arn { partition: part()?, service: part()?, region: part()?, account: part()?, resource: part()? })
    }

    /// The DynamoDB table that it names, or that the stream it names belongs to.
    pub fn table(&self) -> Option<&'a str> {
        self.resource.strip_prefix("table/")?.split('/').next().filter(|table| !table.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_has_six_parts_and_the_last_may_hold_colons() {
        let stream = Arn::parse("arn:aws:dynamodb:eu-west-1:123456789012:table/users/stream/2026-11-21T10:00:00.000");
        let stream = stream.expect("an ARN");
        assert_eq!((stream.partition, stream.service, stream.region), ("aws", "dynamodb", "eu-west-1"));
        assert_eq!((stream.account, stream.table()), ("123456789012", Some("users")));
        assert_eq!(stream.resource, "table/users/stream/2026-11-21T10:00:00.000");
        let table = |text| Arn::parse(text).and_then(|arn| arn.table());
        assert_eq!(table("arn:aws:dynamodb:r:1:table/users"), Some("users"));
        for none in [
            "",
            "users",
            "table/users",
            "arn:table/users",
            "arn:aws:kinesis:r:1:stream/table/users",
            "arn:a:b:c:d:table/",
        ] {
            assert_eq!(table(none), None, "{none}");
        }
    }
}
