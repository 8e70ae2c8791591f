from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("orders", "0004_order_paid_placed_at")]
    operations = [
        migrations.AddField("customer", "telephone", models.CharField(blank=True, default="", max_length=30)),
    ]
